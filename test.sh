#!/bin/sh
# ./test.sh          everything that must hold: lint, format, types, import contracts,
#                    all tests but the slow ones
# ./test.sh --all    the same with the slow tests, and coverage, which takes as much
#                    time again; and with the extra requirements and their tests
# ./test.sh ARGS     only pytest, with these arguments: ./test.sh tests/unit -k config
# The virtual environment is .venv in this folder, or $VENV.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"

# Percent of lines and branches: of everything, and of what guards accounts.
coverage_of_all=85
coverage_of_security=100
security='app/core/security.py,app/core/tokens.py,app/core/passwords.py'
security="$security,app/services/auth*,app/services/auth*/*"

. requirements/venv.sh
venv=${VENV:-.venv}
prepare_venv "$venv" test
python=$venv/bin/python

case ${1-} in
'') tests='not slow' coverage='' extra='' ;;
--all)
    tests='slow or not slow' coverage='--cov --cov-report='
    extra='-o norecursedirs=.*' # tests/extra, too
    ;;
*) exec "$python" -m pytest "$@" ;;
esac

output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'exit 130' INT TERM
times=''

# step NAME COMMAND...: the first that fails ends the run.
step() {
    name=$1
    shift
    say "$name"
    began=$(date +%s)
    status=0
    "$@" || status=$?
    times="$times$name $(($(date +%s) - began)) s, "
    [ $status -eq 0 ] || finish
}

# The summaries come last; pytest's is the very last line.
finish() {
    echo
    if [ $status -eq 0 ]; then
        say "passed: ${times%, }"
    else
        say "FAILED at $name: ${times%, }"
    fi
    tail -n 1 "$output"
    exit $status
}

# Its coverage report would part pytest's lines: it comes as a step of its own.
run_pytest() {
    {
        result=0
        # shellcheck disable=SC2086 # several words, or none
        "$python" -m pytest -m "$tests" -n 3 $coverage $extra || result=$?
        echo "$result" >"$output.status"
    } | tee "$output"
    result=$(cat "$output.status")
    rm -f "$output.status"
    return "$result"
}

# What EMBEDDING_MODEL=local/... needs.
install_extra() {
    "$python" -m pip install --quiet -r requirements/torch.txt &&
        "$python" -m pip install --quiet --no-deps --require-hashes \
            -r requirements/embeddings.txt
}

[ -z "$extra" ] || step "extra requirements" install_extra
step "ruff check" "$python" -m ruff check .
step "ruff format" "$python" -m ruff format --check .
step "mypy" "$python" -m mypy
step "import contracts" "$venv/bin/lint-imports"
step "pytest" run_pytest
if [ -n "$coverage" ]; then
    step "coverage" "$python" -m coverage report --fail-under=$coverage_of_all
    step "security coverage" "$python" -m coverage report \
        --include="$security" --fail-under=$coverage_of_security
fi
finish
