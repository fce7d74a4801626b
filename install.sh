#!/usr/bin/env bash
# Builds aiproxy and installs it for one user. Run it again to update; nothing is installed twice.
set -euo pipefail

NAME=aiproxy
NEEDS_RUST=1.95

usage() {
    cat <<'END'
Usage: ./install.sh [--prefix DIR] [--uninstall] [--help]

Builds aiproxy from this checkout and installs it to PREFIX/bin, with shell completions and man pages.

  --prefix DIR   where to install (default: $PREFIX, else ~/.local)
  --uninstall    remove what an earlier run installed; config, data and stored keys stay
  --help         this text

Needs cargo 1.95 or newer and a C compiler. On Debian and Ubuntu a missing compiler is installed with apt when this runs
as root or sudo needs no password; anything else that is missing is named, with the command that brings it.
END
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

prefix=${PREFIX:-${HOME:?HOME is not set; use --prefix DIR}/.local}
uninstall=no
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -ge 2 ] || fail "--prefix needs a folder"; prefix=$2; shift 2 ;;
        --prefix=*) prefix=${1#--prefix=}; shift ;;
        --uninstall) uninstall=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown option: $1" ;;
    esac
done
case $prefix in
    /*) ;;
    *) prefix=$PWD/$prefix ;;
esac

bash_file=$prefix/share/bash-completion/completions/$NAME
zsh_file=$prefix/share/zsh/site-functions/_$NAME
fish_file=$prefix/share/fish/vendor_completions.d/$NAME.fish
man_dir=$prefix/share/man/man1

if [ "$uninstall" = yes ]; then
    removed=no
    for file in "$prefix/bin/$NAME" "$bash_file" "$zsh_file" "$fish_file" "$man_dir/$NAME.1" "$man_dir/$NAME"-*.1; do
        if [ -e "$file" ]; then
            rm -f "$file"
            say "removed $file"
            removed=yes
        fi
    done
    [ "$removed" = yes ] || say "nothing of $NAME is installed in $prefix"
    say "Config, data and keys in the OS keyring were left alone."
    exit 0
fi

cd "$(dirname "$0")"
[ -f Cargo.toml ] || fail "run me from a checkout of $NAME: there is no Cargo.toml beside me"

# --- Rust
if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH=$HOME/.cargo/bin:$PATH
fi
if ! command -v cargo >/dev/null 2>&1; then
    fail "cargo is missing. Install Rust with
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
and run me again."
fi
version=$(cargo --version | awk '{ print $2 }')
if [ "$(printf '%s\n%s\n' "$NEEDS_RUST" "${version%%-*}" | sort -V | head -n 1)" != "$NEEDS_RUST" ]; then
    if command -v rustup >/dev/null 2>&1; then hint="rustup update stable"; else hint="your package manager, or https://rustup.rs"; fi
    fail "cargo $version is too old, $NEEDS_RUST is needed. Update with: $hint"
fi

# --- C compiler (one dependency has C parts)
if ! command -v cc >/dev/null 2>&1 && ! command -v gcc >/dev/null 2>&1 && ! command -v clang >/dev/null 2>&1; then
    packages="gcc libc6-dev"
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        say "Installing a C compiler ($packages) ..."
        apt-get update -qq
        # shellcheck disable=SC2086 # two words, two packages
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages </dev/null
    elif command -v apt-get >/dev/null 2>&1 && command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        say "Installing a C compiler ($packages) with sudo ..."
        sudo -n apt-get update -qq
        # shellcheck disable=SC2086
        sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages </dev/null
    elif command -v apt-get >/dev/null 2>&1; then
        fail "a C compiler is missing. Install it with: sudo apt-get install $packages"
    elif [ "$(uname -s)" = Darwin ]; then
        fail "a C compiler is missing. Install it with: xcode-select --install"
    else
        fail "a C compiler (cc) is missing. Install gcc or clang with your package manager."
    fi
fi

# --- build
say "Building $NAME (a first build takes some minutes) ..."
cargo build --release --locked --bin "$NAME"
built=${CARGO_TARGET_DIR:-target}/release/$NAME
[ -x "$built" ] || fail "the build ended without $built"

# --- install; the old program may be running, so it is replaced, not written into
put() { # FROM TO MODE
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
put "$built" "$prefix/bin/$NAME" 755
installed=$prefix/bin/$NAME
for shell in bash zsh fish; do
    "$installed" completions "$shell" >"$scratch/$shell"
done
put "$scratch/bash" "$bash_file" 644
put "$scratch/zsh" "$zsh_file" 644
put "$scratch/fish" "$fish_file" 644
"$installed" man "$scratch/man" >/dev/null
rm -f "$man_dir/$NAME.1" "$man_dir/$NAME"-*.1
for page in "$scratch"/man/*.1; do
    put "$page" "$man_dir/$(basename "$page")" 644
done

say "Installed $("$installed" --version) to $installed, with completions for bash, zsh and fish and man pages."
case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) say "$prefix/bin is not on your PATH. Add it:  export PATH=\"$prefix/bin:\$PATH\"" ;;
esac
say "Next:  aiproxy serve"
