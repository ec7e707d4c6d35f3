# Sourced by start.sh and test.sh, from the root of the tree. POSIX sh: dash, macOS.

say() { printf 'workroom: %s\n' "$*"; }

fail() {
    say "$@" >&2
    exit 1
}

# prepare_venv FOLDER LOCK: FOLDER is a virtual environment that holds the packages of
# requirements/LOCK.txt. Costs nothing when it already is: the lock that was installed
# last lies in it, so that one `cmp` tells, and no Python starts.
prepare_venv() {
    venv=$1 lock=requirements/$2.txt installed=$1/installed-$2.txt
    # There from before the first step to after the last: what lies beside it is of no
    # worth. Holds the ids of the processes at work.
    unfinished=$venv/unfinished
    installed "$lock" "$installed" && return
    wait_for_others
    installed "$lock" "$installed" && return

    child=''
    trap 'kill "$child" 2>/dev/null; exit 130' INT
    trap 'kill "$child" 2>/dev/null; exit 143' TERM
    usable || make_venv
    rm -f "$venv"/installed-*.txt
    say "installing $(grep -c == "$lock") packages into $venv (once; about half a minute)"
    # A lock is whole. Asked for dependencies too, pip 23.2 would take the newest release
    # for a name with an extra, such as coverage[toml], and then miss its hash.
    run -m pip install --quiet --disable-pip-version-check --no-input \
        --no-deps --require-hashes -r "$lock" || {
        rm -f "$unfinished" # pip ended of itself: what it leaves, it can go on from
        cat "$venv/install.log" >&2
        fail "pip could not install $lock (its words are above): check the network" \
            "or name a package index in PIP_INDEX_URL, then start again"
    }
    cp "$lock" "$installed"
    # Every lock holds the base's packages in the same versions (compile.sh).
    [ "$2" = base ] || cp requirements/base.txt "$venv/installed-base.txt"
    rm -f "$unfinished"
    trap - INT TERM
}

installed() { [ -x "$venv/bin/python" ] && cmp -s "$1" "$2"; }

# Another start that is still installing, or the pip that a killed one left behind.
wait_for_others() {
    seconds=0
    while others=$(working) && [ -n "$others" ]; do
        [ $seconds -gt 0 ] || say "waiting for another start that is installing ($others)"
        [ $seconds -lt 300 ] || fail "still installing after $seconds s:" \
            "end process $others, or delete $venv, then start again"
        sleep 1
        seconds=$((seconds + 1))
    done
}

working() {
    for pid in $(cat "$unfinished" 2>/dev/null); do
        [ "$pid" = $$ ] || ! kill -0 "$pid" 2>/dev/null || echo "process $pid"
    done
}

usable() {
    [ ! -e "$unfinished" ] && [ -x "$venv/bin/python" ] &&
        "$venv/bin/python" -c "$probe" &&
        "$venv/bin/python" -m pip --version
} >/dev/null 2>&1

make_venv() {
    [ "$venv" = .venv ] || [ ! -e "$venv" ] || [ -e "$venv/pyvenv.cfg" ] ||
        [ -e "$unfinished" ] || fail "$venv is no virtual environment: name another one"
    find_python
    say "making $venv with $("$python" -c 'import sys; print(sys.executable)')"
    rm -rf "$venv"
    mkdir -p "$venv" || fail "cannot make $venv: make this folder writable"
    echo $$ >"$unfinished"
    run_python "$python" -m venv "$venv" || {
        cat "$venv/install.log" >&2
        fail "$python could not make $venv (its words are above)"
    }
}

run() { run_python "$venv/bin/python" "$@"; }

# In the background, so that a signal ends the wait and the trap ends the child.
run_python() {
    "$@" >"$venv/install.log" 2>&1 &
    child=$!
    echo "$$ $child" >"$unfinished"
    wait "$child"
}

# Exits 3 when too old, 4 without what makes environments; any other failure is a name
# that does not run, such as a pyenv shim without a version.
probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(3)
try:
    import ensurepip, venv
except ImportError:
    sys.exit(4)
'

find_python() {
    old='' bare=''
    for python in "${PYTHON-}" python3.13 python3.12 python3.11 python3 python; do
        [ -n "$python" ] || continue
        status=0
        "$python" -c "$probe" >/dev/null 2>&1 </dev/null || status=$?
        case $status in
        0) return ;;
        3) old="$old $python" ;;
        4) bare=${bare:-$python} ;;
        esac
        [ "$python" != "${PYTHON-}" ] ||
            say "PYTHON=$python is no Python 3.11 or newer that can make environments: looking on" >&2
    done
    if [ -n "$bare" ]; then
        version=$("$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$bare has no venv module: install it (Debian, Ubuntu:" \
            "sudo apt install python$version-venv), then start again"
    fi
    fail "needs Python 3.11 or newer and finds none${old:+ (too old:$old)}: install it" \
        "(https://www.python.org/downloads/) or name one: PYTHON=/path/to/python ./start.sh"
}
