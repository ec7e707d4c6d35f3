#!/bin/sh
# Compile every requirements/*.in into its lock. Needs uv (`$UV`, or on PATH; the
# development requirements bring it). Pins stay as they are unless asked:
#   requirements/compile.sh --upgrade
#   requirements/compile.sh --upgrade-package fastapi
set -eu
cd "$(dirname "$0")"
export UV_CUSTOM_COMPILE_COMMAND="requirements/compile.sh"

compile() {
    name=$1
    shift
    "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        "$name.in" --output-file "$name.txt" "$@"
    echo "requirements/$name.txt: $(grep -c == "$name.txt") packages"
}

compile base "$@"
# The other locks hold the very versions of the base.
for name in production test development train; do
    compile "$name" --constraints base.txt "$@"
done
# Installed beside the tests, too: see test.sh.
compile embeddings --constraints base.txt --constraints test.txt "$@"
