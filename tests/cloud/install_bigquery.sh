#!/bin/sh
# Makes the local BigQuery server's environment: install_bigquery.sh FOLDER LOCK_FILE UV
#
# The server needs Python 3.13, whatever the pipeline runs on. Without one the tests that ask the server are skipped.
set -eu
folder=$1 lock=$2 uv=$3

is_3_13() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' >/dev/null 2>&1
}

find_python() {
  for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python; do
    if is_3_13 "$candidate"; then echo "$candidate"; return; fi
  done
  # uv knows more places, and the Pythons that it has installed itself.
  "$uv" python find 3.13 2>/dev/null || true
}

python=$(find_python)
if [ -z "$python" ]; then
  echo "note: no Python 3.13 was found: the tests that need the local BigQuery server are skipped" >&2
  exit 0
fi
rm -rf "$folder"
"$python" -m venv "$folder"
"$uv" pip install --quiet --compile-bytecode --python "$folder/bin/python" --require-hashes --no-deps -r "$lock" ||
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock"
# DuckDB looks for its extensions in the home folder, from where it would download them; they came as packages.
"$folder/bin/python" - "$folder" <<'EOF'
import pathlib, sys, duckdb
folder = pathlib.Path(sys.argv[1]).resolve()
platform = duckdb.sql("PRAGMA platform").fetchone()[0]
target = folder / "home/.duckdb/extensions" / f"v{duckdb.__version__}" / platform
target.mkdir(parents=True)
packages = pathlib.Path(duckdb.__file__).parents[1]
for file in packages.glob("duckdb_extension_*/extensions/*/*.duckdb_extension"):
    (target / file.name).symlink_to(file)
EOF
touch "$folder/.installed"
