# Sourced by the commands that make what they need: Debian packages, and a virtual environment in the checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$root/.venv
# Whoever sets it has every program compile all of DistCI again, which takes as long as the rest of its start.
unset PYTHONDONTWRITEBYTECODE

# help_if_asked FIRST-ARGUMENT: print the comment on top of the command, and end.
help_if_asked() {
    case "$1" in -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;; esac
}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$(basename "$0"): $*"; exit 1; }

# require_packages PACKAGE...: install the Debian packages that are missing, or say how.
require_packages() {
    local package missing=() as_root=()
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local install=(apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}")
    if ! command -v apt-get >/dev/null; then
        fail "please install what Debian calls ${missing[*]}, then start this again"
    elif [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "please run:  sudo apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo -n)
    fi
    say "installing ${missing[*]} ..."
    export DEBIAN_FRONTEND=noninteractive
    # Lists of packages may be missing or too old: the first failure may mean no more than that.
    "${as_root[@]}" "${install[@]}" >/dev/null 2>&1 && return
    { "${as_root[@]}" apt-get update && "${as_root[@]}" "${install[@]}"; } >&2 || fail "could not install ${missing[*]}"
}

# find_python: the interpreter to make the environment with.
find_python() {
    local candidate
    # Debian's own, where it can make one: the module rados is of it, and it is optimised as those that were built on the spot seldom are.
    if /usr/bin/python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo /usr/bin/python3
        return
    fi
    for candidate in python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    require_packages python3
    command -v python3
}

# make_environment [EXTRA]: DistCI from this checkout, with its dependencies; used again until what it is made from changes.
make_environment() {
    local extra=${1:-} python stamp
    python=$(find_python)
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed; $python is older"
    stamp=$({ "$python" --version; echo "$root"; cat "$root/setup.cfg" "$root/pyproject.toml"; } | sha256sum | cut -d' ' -f1)
    # An environment with the extra has all that one without it has.
    if [ ! -f "$environment/made-from-$stamp-$extra" ] && { [ -n "$extra" ] || ! compgen -G "$environment/made-from-$stamp-*" >/dev/null; }; then
        "$python" -c 'import ensurepip, venv' 2>/dev/null || require_packages python3-venv
        say "making the virtual environment $environment ..."
        # One that somebody else made is completed, and one that only lacks the extra; another of ours is made anew, since it may be of
        # another interpreter. One that was left half made is none, and its pip would change the interpreter's own packages.
        if ! "$environment/bin/python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null ||
            { compgen -G "$environment/made-from-*" >/dev/null && ! compgen -G "$environment/made-from-$stamp-*" >/dev/null; }; then
            "$python" -m venv --clear "$environment"
        fi
        "$environment/bin/pip" install --quiet --disable-pip-version-check --upgrade 'setuptools>=77' --editable "$root${extra:+[$extra]}" || fail "pip could not install what is needed"
        touch "$environment/made-from-$stamp-$extra"
    fi
    export PATH=$environment/bin:$PATH
}

# lend_rados: Debian's module rados, which no index of Python packages has, into the environment.
lend_rados() {
    local module
    module=/usr/lib/python3/dist-packages/rados$(python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    [ -e "$module" ] || fail "$environment is of $(python --version), and Debian's python3-rados is not; please run:  rm -r '$environment' && /usr/bin/python3 -m venv '$environment'"
    ln -sf "$module" "$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
}
