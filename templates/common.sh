# What build.sh and launch.sh share; sourced by them.
# shellcheck shell=bash

# shellcheck disable=SC2034  # both use it
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dry_run=false

fail() { # MESSAGE: wrong usage
  printf '%s: error: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

need() { # OPTION EXAMPLE: the variable that is named as the option must be set
  local variable="${1#--}"
  variable="${variable//-/_}"
  [[ -n "${!variable}" ]] || fail "$1 is missing: expected for example $1 $2"
}

take() { # OPTION [VALUE]...: sets the variable that is named as the option
  [[ -n "${2-}" && "$2" != --* ]] || fail "$1 has no value"
  local variable="${1#--}"
  printf -v "${variable//-/_}" '%s' "$2"
}

run() { # COMMAND...: runs it, or with --dry-run only says it
  if "$dry_run"; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}
