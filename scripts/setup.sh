#!/usr/bin/env bash
# Make a machine ready for tests and the demo: packages, .venv, mounts. Safe to repeat; quick when nothing changed.
#   scripts/setup.sh [--bench]     --bench adds what only the comparison with containerd needs
# PYTHON names the interpreter (3.11 or newer); where it is too old, /usr/bin/python3 is tried.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  crun runc conmon containernetworking-plugins    # runtimes, monitor, networks
  docker-registry skopeo umoci apache2-utils      # a registry and images for the tests; htpasswd
  golang-github-containers-common                 # /etc/containers/policy.json and registries.conf
  podman                                          # stores of images to read in tests
  containerd                                      # images to take over in tests, and the peer of the bench
  catatonit busybox-static                        # infra containers; the test image
  gpg gpg-agent gpgconf                           # signatures of images; the agent and gpgconf for tests that sign
  iptables nftables iproute2                      # host ports, test networks
  mount tzdata                                    # what a minimal Debian lacks
  e2fsprogs btrfs-progs xfsprogs                  # small disks for the tests
  python3-venv make shellcheck ca-certificates
)
command -v npm >/dev/null || packages+=(nodejs npm)  # a SPDY peer for the tests; other vendors' nodejs brings npm along
[[ "${1:-}" == "--bench" ]] && packages+=(isal curl zstd)

say() { printf 'setup: %s\n' "$*"; }

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || echo "$package"
  done
}

install_packages() {
  local missing
  if ! command -v dpkg-query >/dev/null; then
    say "this is no Debian: install by hand what is missing of: ${packages[*]}"
    return
  fi
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    say "not root: tests with real parts need: apt-get install ${missing[*]}"
    return
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -y -o DPkg::Lock::Timeout=600 update
  apt-get -q -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "${missing[@]}"
}

is_usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" /usr/bin/python3 python3.13 python3.12 python3.11; do
    if is_usable "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  say "no Python 3.11 or newer with venv found; install one and run: make setup PYTHON=/path/to/python3" >&2
  exit 1
}

make_venv() {
  local python wanted
  # Only what changes the environment's content; the sources are linked, not copied.
  wanted="$(cat requirements/dev.txt pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1) $PWD"
  if [[ -x .venv/bin/python && "$(cat .venv/.setup-done 2>/dev/null)" == "$wanted" ]] && .venv/bin/python -c 'import criollo'; then
    return
  fi
  python="$(find_python)"
  say ".venv with $("$python" --version), libraries pinned by hash"
  if [[ ! -x .venv/bin/python ]] || ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    rm -rf .venv
    "$python" -m venv .venv
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements/dev.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
  compiled .venv/lib/python3*/site-packages || true  # some hold files for other versions
  echo "$wanted" > .venv/.setup-done
}

fetch_kubectl() {
  # Beside the system: other vendors' packages have the same file, and tests want a client of either age.
  local suite="$1" package="$2" into="$PWD/.venv/kubectl/$1" scratch
  [[ ! -x "$into/kubectl" ]] || return 0
  { ((EUID == 0)) && command -v apt-get dpkg-deb >/dev/null; } || return 0
  scratch="$(mktemp -d)"
  if (cd "$scratch" && download "$suite" "$package" && dpkg-deb -x ./*.deb root && install -D root/usr/bin/kubectl "$into/kubectl"); then
    say "kubectl of Debian $suite in $into"
  else
    say "kubectl of Debian $suite cannot be had here; tests that need it are skipped"
  fi
  rm -rf "$scratch"
}

download() {
  # A package of a suite that may not be this machine's, into the working directory, from the mirror this machine uses.
  local suite="$1" package="$2" mirror apt
  # shellcheck disable=SC2016  # apt fills these in
  mirror="$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -n 1)"
  mkdir -p lists/partial archives/partial
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg > only.sources
  apt=(apt-get -q -q -o Dir::Etc::SourceList="$PWD/only.sources" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$PWD/lists"
    -o Dir::Cache="$PWD" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  "${apt[@]}" update && "${apt[@]}" download "$package/$suite"
}

compiled() {
  # Where Python may not write its caches itself, every start would compile all sources: 1.4 s, and half a MiB that stays.
  # Without columns, which only underline parts of lines in tracebacks, a daemon is smaller by another 1.2 MiB.
  .venv/bin/python -X no_debug_ranges -m compileall -q "$@" >/dev/null
}

mount_hugetlb() {
  # On cgroup v1 crun opens the hugetlb hierarchy when the kernel has it, mounted or not.
  [[ "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)" == tmpfs ]] || return 0
  grep -q '^hugetlb' /proc/cgroups || return 0
  mountpoint -q /sys/fs/cgroup/hugetlb && return 0
  if ((EUID != 0)); then
    say "not root: crun needs: mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb"
    return
  fi
  say "mounting the hugetlb cgroup hierarchy"
  mkdir -p /sys/fs/cgroup/hugetlb
  mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb || say "that failed; containers by crun may fail"
}

install_packages
make_venv
compiled src/criollo
fetch_kubectl bookworm kubernetes-client
fetch_kubectl trixie kubectl
mount_hugetlb
