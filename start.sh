#!/bin/sh
# Workroom, from a fresh clone with only Python >= 3.11: makes .venv, installs the
# locked requirements, and serves. Arguments go on to `python -m app serve`.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. requirements/venv.sh
prepare_venv .venv base
exec .venv/bin/python -m app serve "$@"
