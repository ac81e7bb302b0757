"""What a seccomp program decides, without a kernel: enough of classic BPF for what libseccomp writes.

decide(program, X86_64, nr, 0x28) -> "EPERM"
"""

import errno
import struct

X86_64, X86, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028  # linux/audit.h
X32_BIT = 0x40000000

_JUMPS = {0x10: lambda a, k: a == k, 0x20: lambda a, k: a > k, 0x30: lambda a, k: a >= k, 0x40: lambda a, k: bool(a & k)}


def decide(program: bytes, architecture: int, number: int, *args: int) -> str:
    """ALLOW, the name of an errno, or the action in hex."""
    memory = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *(*args, *(0,) * (6 - len(args))))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at, accumulator = 0, 0
    while True:
        code, true, false, k = instructions[at]
        at += 1
        match code & 7:
            case 0:  # BPF_LD of a word
                accumulator = struct.unpack_from("<I", memory, k)[0]
            case 4:  # BPF_ALU, AND with a constant
                assert code == 0x54, hex(code)
                accumulator &= k
            case 5:  # BPF_JMP
                at += k if code & 0xF0 == 0 else true if _JUMPS[code & 0xF0](accumulator, k) else false
            case 6:  # BPF_RET
                return _shown(k)
            case _:
                raise AssertionError(f"an instruction that filters do not have: {code:#x}")


def _shown(action: int) -> str:
    if action == 0x7FFF0000:
        return "ALLOW"
    return errno.errorcode[action & 0xFFFF] if action & 0xFFFF0000 == 0x00050000 else hex(action)
