#!/usr/bin/env bash
# Pin the libraries of pyproject.toml with hashes: requirements/run.txt for a node, requirements/dev.txt for this tree.
#   scripts/lock.sh [--upgrade] [--output DIRECTORY]    without --upgrade, pins that still fit are kept
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

output=requirements
options=(--quiet --generate-hashes --no-header --no-annotate --python-version 3.11 --allow-unsafe)
while (($#)); do
  case "$1" in
    --upgrade) options+=(--upgrade) ;;
    --output) output="$2"; shift ;;
    *) echo "lock: unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done

if ! command -v uv >/dev/null; then
  echo "lock: uv is not in PATH; install it with: .venv/bin/pip install uv, and put .venv/bin into PATH" >&2
  exit 1
fi
mkdir -p "$output"
uv pip compile "${options[@]}" -o "$output/run.txt" pyproject.toml >/dev/null
uv pip compile "${options[@]}" --extra dev -o "$output/dev.txt" pyproject.toml >/dev/null
