#!/usr/bin/env python3
"""Build the benchmark images as OCI layouts, from Debian packages.

    make_images.py --out DIR [--images many,few,tiny,pause] [--compress gzip,zstd]
                   [--push HOST:PORT]

Images (amd64, OCI media types, one layout per image and compression,
DIR/<image>-<compression>):

  many   many small files: a Debian userland in six layers (base, python and
         compiler, node + npm, TeX, python web, and an "app" layer with
         whiteouts, an opaque directory, a file capability, hard links, a
         device node and a fifo); about 55,000 entries, 850 MB
  few    few large files: three layers, about 1 GB (busybox; large ELF files
         and generated log text; one incompressible 400 MB file)
  tiny   busybox, one layer
  pause  catatonit, one layer: what holds a pod's namespaces where a runtime needs that

Nothing is installed or run from the packages: the dependency closure is
resolved by apt in a private root, the .deb files are downloaded (they are kept
in DIR/debs and reused), and their data tars are re-streamed into layer tars, so
owners, modes, mtimes, links and directory entries are the packages' own.
Names are rewritten to the merged /usr layout.  Output is deterministic for a
given set of packages.

gzip is zlib level 6 (single member, as buildkit/docker write); zstd is level 3
by the zstd command.  Needs: Python 3.9+, apt-get, dpkg-deb, zstd (for zstd),
skopeo (for --push).  No root needed.
"""

import argparse
import concurrent.futures as cf
import glob
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import zlib

EPOCH = 1735689600  # mtime for generated entries
BASE = ["?essential", "base-files", "apt", "ca-certificates", "tzdata", "netbase"]
MANY = [
    ("base", BASE),
    ("python", ["python3", "python3-pip", "python3-dev", "build-essential", "git"]),
    ("node", ["nodejs", "npm"]),
    ("tex", ["texlive-latex-base", "texlive-fonts-recommended"]),
    ("web", ["python3-sqlalchemy", "python3-requests", "python3-yaml", "python3-flask"]),
]
FEW_ELF = ["chromium", "libllvm15", "libwebkit2gtk-4.1-0"]
SHELL = {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]}
RUNS = {"pause": {"Entrypoint": ["/catatonit", "-P"]}}
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


# ---------------------------------------------------------------- packages
def system_mirror():
    """The first Debian archive that this machine's apt uses."""
    places = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
    for place in filter(os.path.exists, places):
        with open(place) as f:
            for line in f:
                words = line.split()
                if words[:1] == ["URIs:"]:
                    return words[1]
                if words[:1] == ["deb"]:
                    return next(w for w in words if "://" in w)
    raise SystemExit("no Debian archive in apt's sources: give --mirror")


class Apt:
    """A private apt root: resolves and downloads, installs nothing."""

    def __init__(self, root, suite, mirror):
        self.root = os.path.abspath(root)
        for d in (
            "etc/apt/preferences.d",
            "etc/apt/apt.conf.d",
            "var/lib/dpkg",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
        ):
            os.makedirs(f"{self.root}/{d}", exist_ok=True)
        open(f"{self.root}/var/lib/dpkg/status", "a").close()
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        with open(f"{self.root}/etc/apt/sources.list", "w") as f:
            f.write(f"deb [signed-by={keys}] {mirror} {suite} main\n")
        self.opts = [
            "-qq",
            "-o",
            f"Dir={self.root}",
            "-o",
            "Dir::Etc::sourceparts=-",
            "-o",
            f"Dir::State::status={self.root}/var/lib/dpkg/status",
            "-o",
            "APT::Architecture=amd64",
            "-o",
            "APT::Architectures=amd64",
            "-o",
            "APT::Sandbox::User=",
            "-o",
            "APT::Install-Recommends=false",
            "-o",
            "Debug::NoLocking=1",
            "-o",
            "Acquire::Languages=none",
        ]
        if not glob.glob(f"{self.root}/var/lib/apt/lists/*Packages*"):
            subprocess.run(["apt-get", *self.opts, "update"], check=True)

    def download(self, pkgs):
        """Download just these packages; returns the .deb paths."""
        d = f"{self.root}/alone"
        os.makedirs(d, exist_ok=True)

        def have(p):
            return glob.glob(f"{d}/{p}_*.deb")

        missing = [p for p in pkgs if not have(p)]
        if missing:
            subprocess.run(["apt-get", *self.opts, "download", *missing], check=True, cwd=d)
        return [have(p)[0] for p in pkgs]

    def closure(self, pkgs):
        """Download pkgs with their dependencies; returns the .deb paths."""
        sim = subprocess.run(
            ["apt-get", *self.opts, "-y", "-s", "install", *pkgs], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        subprocess.run(["apt-get", *self.opts, "-y", "--download-only", "install", *pkgs], check=True)
        debs = []
        for line in sim.splitlines():
            if line.startswith("Inst "):
                name, ver = line.split()[1], line.split("(")[1].split()[0]
                pat = f"{self.root}/var/cache/apt/archives/{name}_{ver.replace(':', '%3a')}_*.deb"
                hit = glob.glob(pat)
                if not hit:
                    raise SystemExit(f"no file for {name} {ver} ({pat})")
                debs.append(hit[0])
        return sorted(debs)


# ---------------------------------------------------------------- layer tars
class Layer:
    """Collects tar entries (each directory once) into an uncompressed tar."""

    def __init__(self, path):
        self.path = path
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  # `close` ends it
        self.seen = set()
        self.entries = self.bytes = 0

    def add(self, info, fileobj=None):
        info.uname = info.gname = ""
        if info.name in self.seen:
            return False
        self.seen.add(info.name)
        self.tar.addfile(info, fileobj)
        self.entries += 1
        self.bytes += info.size
        return True

    def make(self, name, type=tarfile.REGTYPE, mode=0o644, data=b"", fileobj=None, **kw):
        ti = tarfile.TarInfo(name)
        ti.type, ti.mode, ti.mtime = type, mode, EPOCH
        ti.size = kw.pop("size", len(data))
        for k, v in kw.items():
            setattr(ti, k, v)
        self.add(ti, fileobj or io.BytesIO(data))

    def deb(self, path, want=None):
        """Add the entries of a package (those want() accepts)."""
        p = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE)
        with tarfile.open(fileobj=p.stdout, mode="r|") as t:
            for m in t:
                m.name = merged(m.name[2:] if m.name.startswith("./") else m.name)
                if m.name in ("", ".") or (want and not want(m)):
                    continue
                if m.islnk():
                    m.linkname = merged(m.linkname[2:] if m.linkname.startswith("./") else m.linkname)
                m.pax_headers = {}
                m.mtime = int(m.mtime)
                self.add(m, t.extractfile(m) if m.isreg() else None)
        p.stdout.close()
        if p.wait():
            raise SystemExit(f"dpkg-deb failed on {path}")

    def close(self):
        self.tar.close()
        return self.path


def merged(name):
    top = name.split("/", 1)[0]
    return "usr/" + name if top in MERGED else name


def merge_links(layer):
    for d in (*MERGED[:3], "lib64"):
        layer.make(f"usr/{d}", tarfile.DIRTYPE, 0o755)
    for d in (*MERGED[:3], "lib64"):
        layer.make(d, tarfile.SYMTYPE, 0o777, linkname=f"usr/{d}")


def busybox_layer(path, apt):
    la = Layer(path)
    for d in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var"):
        la.make(d, tarfile.DIRTYPE, 0o1777 if d == "tmp" else 0o755)
    deb = apt.download(["busybox-static"])[0]
    p = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(p.stdout)) as t:
        m = next(m for m in t if m.name.endswith("bin/busybox"))
        data = t.extractfile(m).read()
    la.make("bin/busybox", mode=0o755, data=data)
    for app in (
        "[ ash awk basename cat chmod chown cp cut date dd df dirname du echo env expr false "
        "find grep gunzip gzip head hostname id install kill less ln ls md5sum mkdir mkfifo "
        "mknod mktemp more mount mv nc nice nohup ping pkill printf ps pwd readlink rm rmdir "
        "sed seq sh sha256sum sleep sort stat stty sync tail tar tee test time timeout top "
        "touch tr true tty umount uname uniq unlink vi wc wget which xargs yes zcat"
    ).split():
        la.make(f"bin/{app}", tarfile.LNKTYPE, 0o755, linkname="bin/busybox")
    la.make("etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    la.make("etc/group", data=b"root:x:0:\nnogroup:x:65534:\n")
    return la.close()


def app_layer(path, below):
    """Small top layer with everything awkward a layer may hold."""
    la = Layer(path)
    docs = sorted(n for n in below if n.startswith("usr/share/doc/") and n.count("/") == 3)[:200]
    la.make("usr/share/doc", tarfile.DIRTYPE, 0o755)
    for n in docs:  # removed directories
        la.make("usr/share/doc/.wh." + n.rsplit("/", 1)[1])
    la.make("usr/share/locale", tarfile.DIRTYPE, 0o755)
    la.make("usr/share/locale/.wh..wh..opq")  # emptied, then refilled
    la.make("usr/share/locale/locale.alias", data=b"# none\n")
    cap = "\x01\x00\x00\x02\x00\x20\x00\x00" + "\x00" * 12  # cap_net_raw+ep
    la.make(
        "usr/bin/app-ping",
        mode=0o755,
        data=b"\x7fELF" + b"p" * 60000,
        pax_headers={"SCHILY.xattr.security.capability": cap, "SCHILY.xattr.user.note": "caf\u00e9"},
    )
    la.make("app", tarfile.DIRTYPE, 0o750, uid=1000, gid=1000)
    rnd = random.Random(7)
    for i in range(400):
        d = f"app/mod{i % 20:02d}"
        if d not in la.seen:
            la.make(d, tarfile.DIRTYPE, 0o755, uid=1000, gid=1000)
        body = "".join(f"def f{k}(x):\n    return x * {rnd.random()}\n" for k in range(rnd.randint(5, 200)))
        la.make(f"{d}/file{i}.py", data=body.encode(), uid=1000, gid=1000)
    la.make("app/" + "long-component/" * 12 + "name.txt", data=b"long path\n", uid=1000, gid=1000)
    la.make("app/suid", mode=0o4755, data=b"#!/bin/sh\n")
    la.make("app/hard", tarfile.LNKTYPE, linkname="app/suid", mode=0o4755)
    la.make("app/null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3)
    la.make("app/fifo", tarfile.FIFOTYPE, 0o600)
    la.make("app/dangling", tarfile.SYMTYPE, 0o777, linkname="/nowhere/at/all")
    return la.close(), la


class Noise(io.RawIOBase):
    """Deterministic incompressible bytes."""

    def __init__(self, seed):
        self.seed, self.n, self.buf = seed, 0, b""

    def read(self, size=-1):
        while len(self.buf) < size:
            self.buf += random.Random(f"{self.seed}{self.n}").randbytes(1 << 20)
            self.n += 1
        out, self.buf = self.buf[:size], self.buf[size:]
        return out


class Log(Noise):
    """Deterministic log-like text (compresses about five to one)."""

    def read(self, size=-1):
        while len(self.buf) < size:
            r = random.Random(f"log{self.seed}{self.n}")
            block = "".join(
                f'{{"ts":{EPOCH + self.n * 4000 + k},"level":"{r.choice(("info", "warn", "debug"))}",'
                f'"id":"{r.getrandbits(64):016x}","path":"/api/v1/{r.choice(("pods", "nodes", "events"))}/'
                f'{r.randrange(5000)}","ms":{r.random() * 100:.3f}}}\n'
                for k in range(4000)
            )
            self.buf += block.encode() * 2
            self.n += 1
        out, self.buf = self.buf[:size], self.buf[size:]
        return out


# ---------------------------------------------------------------- images
def layers_many(apt, work):
    done, debs, out, below = set(), [], [], set()
    want = []
    for name, pkgs in MANY:
        want += pkgs
        debs = [d for d in apt.closure(want) if d not in done]
        done.update(debs)
        la = Layer(f"{work}/many-{name}.tar")
        if name == "base":
            merge_links(la)
        for d in debs:
            la.deb(d)
        below |= la.seen
        out.append(la.close())
        print(f"  many/{name}: {len(debs)} packages, {la.entries} entries, {la.bytes >> 20} MiB", flush=True)
    path, la = app_layer(f"{work}/many-app.tar", below)
    print(f"  many/app: {la.entries} entries", flush=True)
    return [*out, path]


def layers_few(apt, work):
    one = busybox_layer(f"{work}/few-base.tar", apt)
    la = Layer(f"{work}/few-elf.tar")
    la.make("opt", tarfile.DIRTYPE, 0o755)
    for d in apt.download(FEW_ELF):
        la.deb(d, lambda m: m.isreg() and m.size > 4 << 20)
    la.make("opt/events.log", size=200 << 20, fileobj=Log("a"))
    print(f"  few/elf: {la.entries} entries, {la.bytes >> 20} MiB", flush=True)
    lb = Layer(f"{work}/few-model.tar")
    lb.make("opt", tarfile.DIRTYPE, 0o755)
    lb.make("opt/model.bin", size=400 << 20, fileobj=Noise("m"))
    return [one, la.close(), lb.close()]


def layers_tiny(apt, work):
    return [busybox_layer(f"{work}/tiny.tar", apt)]


def layers_pause(apt, work):
    la = Layer(f"{work}/pause.tar")
    p = subprocess.run(["dpkg-deb", "--fsys-tarfile", apt.download(["catatonit"])[0]], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(p.stdout)) as t:
        m = next(m for m in t if m.name.endswith("bin/catatonit"))
        la.make("catatonit", mode=0o755, data=t.extractfile(m).read())
    return [la.close()]


# ---------------------------------------------------------------- OCI layout
def blob(layout, data, media):
    dig = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{dig}", "wb") as f:
        f.write(data)
    return {"mediaType": media, "digest": "sha256:" + dig, "size": len(data)}


def pack(args):
    """Compress one layer tar into the layout; returns (descriptor, diff_id)."""
    tar, layout, how = args
    tmp = f"{layout}/{os.path.basename(tar)}.tmp"
    diff, comp = hashlib.sha256(), hashlib.sha256()
    if how == "zstd":
        subprocess.run(["zstd", "-q", "-3", "-f", tar, "-o", tmp], check=True)
        with open(tar, "rb") as f:
            while b := f.read(1 << 20):
                diff.update(b)
        with open(tmp, "rb") as f:
            while b := f.read(1 << 20):
                comp.update(b)
    else:
        z = zlib.compressobj(6, zlib.DEFLATED, 31)
        with open(tar, "rb") as f, open(tmp, "wb") as o:
            while True:
                b = f.read(1 << 20)
                diff.update(b)
                c = z.compress(b) if b else z.flush()
                comp.update(c)
                o.write(c)
                if not b:
                    break
    dig, size = comp.hexdigest(), os.path.getsize(tmp)
    os.rename(tmp, f"{layout}/blobs/sha256/{dig}")
    return (
        {"mediaType": f"application/vnd.oci.image.layer.v1.tar+{how}", "digest": "sha256:" + dig, "size": size},
        "sha256:" + diff.hexdigest(),
    )


def layout(out, image, how, tars, pool):
    path = f"{out}/{image}-{how}"
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(f"{path}/blobs/sha256")
    packed = list(pool.map(pack, [(t, path, how) for t in tars]))
    cfg = {
        "architecture": "amd64",
        "os": "linux",
        "config": RUNS.get(image, SHELL),
        "rootfs": {"type": "layers", "diff_ids": [d for _, d in packed]},
        "history": [{"created_by": os.path.basename(t)} for t in tars],
    }
    cd = blob(path, json.dumps(cfg).encode(), "application/vnd.oci.image.config.v1+json")
    man = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": cd,
        "layers": [d for d, _ in packed],
    }
    md = blob(path, json.dumps(man).encode(), man["mediaType"])
    md["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    with open(f"{path}/index.json", "w") as f:
        json.dump({"schemaVersion": 2, "manifests": [md]}, f)
    with open(f"{path}/oci-layout", "w") as f:
        f.write('{"imageLayoutVersion": "1.0.0"}')
    print(
        f"{path}: {len(tars)} layers, {sum(d['size'] for d, _ in packed) >> 20} MiB compressed, "
        f"{sum(map(os.path.getsize, tars)) >> 20} MiB of tar",
        flush=True,
    )
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True, help="directory for the layouts, .debs and scratch tars")
    ap.add_argument("--images", default="many,few,tiny,pause")
    ap.add_argument("--compress", default="gzip,zstd")
    ap.add_argument("--suite", default="bookworm")
    ap.add_argument("--mirror", default=system_mirror(), help="default: the mirror of this machine's apt")
    ap.add_argument("--jobs", type=int, default=os.cpu_count())
    ap.add_argument("--keep-tars", action="store_true", help="keep DIR/tars (uncompressed layers)")
    ap.add_argument("--push", metavar="HOST:PORT", help="also push each as HOST:PORT/<image>:<compression> (plain http)")
    a = ap.parse_args()
    os.makedirs(f"{a.out}/tars", exist_ok=True)
    apt = Apt(f"{a.out}/debs", a.suite, a.mirror)
    make = {"many": layers_many, "few": layers_few, "tiny": layers_tiny, "pause": layers_pause}
    with cf.ProcessPoolExecutor(a.jobs) as pool:
        for image in a.images.split(","):
            print(f"{image}:", flush=True)
            tars = make[image](apt, f"{a.out}/tars")
            for how in a.compress.split(","):
                path = layout(a.out, image, how, tars, pool)
                if a.push:
                    subprocess.run(
                        [
                            "skopeo",
                            "copy",
                            "-q",
                            "--preserve-digests",
                            "--dest-tls-verify=false",
                            f"oci:{path}:latest",
                            f"docker://{a.push}/{image}:{how}",
                        ],
                        check=True,
                    )
    if not a.keep_tars:
        shutil.rmtree(f"{a.out}/tars")


if __name__ == "__main__":
    main()
