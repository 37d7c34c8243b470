#!/usr/bin/env bash
# Builds the image, pushes it, and writes the Flex Template that names it by its digest.
set -euo pipefail
# shellcheck source=templates/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: templates/build.sh --project PROJECT --image LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/NAME --template gs://BUCKET/NAME.json [...]

  --project PROJECT        whose Cloud Build and Artifact Registry are used
  --image IMAGE            where the image goes, without a tag
  --template gs://...      where the template goes; one that is there is replaced
  --builder BUILDER        cloud-build (default), or docker on this machine
  --build-account EMAIL    Cloud Build runs as this service account (default: the project's default)
  --build-staging gs://... Cloud Build takes the sources from here (default: a bucket that it makes)
  --tag TAG                of the image (default: the time, YYYYMMDD-HHMMSS)
  --launcher-tag TAG       of Google's base image, from which the launcher is taken (default: what the Dockerfile says)
  --dry-run                print the commands, run none
TEXT
}

project='' image='' template='' builder=cloud-build build_account='' build_staging='' launcher_tag=''
tag="$(date -u +%Y%m%d-%H%M%S)"
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h)
      usage
      exit 0
      ;;
    --dry-run)
      dry_run=true
      shift
      ;;
    --project | --image | --template | --builder | --build-account | --build-staging | --tag | --launcher-tag)
      take "$@"
      shift 2
      ;;
    *) fail "unknown option '$1': see $0 --help" ;;
  esac
done
need --project my-project
need --image us-west1-docker.pkg.dev/my-project/hear/pipeline
need --template gs://my-bucket/templates/hear.json
[[ "$image" =~ ^[a-z0-9.-]+(/[A-Za-z0-9._-]+)+$ ]] || fail "--image is '$image': expected a name without tag or digest"
[[ "$template" =~ ^gs://[^/]+/.*[^/]$ ]] || fail "--template is '$template': expected gs://BUCKET/NAME.json"
[[ "$tag" =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || fail "--tag is '$tag': expected letters, digits and . _ -"

if [[ -z "$launcher_tag" ]]; then
  launcher_tag="$(sed -n 's/^ARG LAUNCHER_TAG=//p' "$root/templates/Dockerfile")"
fi

case "$builder" in
  cloud-build)
    submit=(
      gcloud builds submit "$root"
      "--project=$project"
      "--config=$root/templates/cloudbuild.yaml"
      "--ignore-file=templates/gcloudignore"
      "--substitutions=_IMAGE=$image:$tag,_LAUNCHER_TAG=$launcher_tag"
    )
    if [[ -n "$build_account" ]]; then
      submit+=("--service-account=projects/$project/serviceAccounts/$build_account")
    fi
    if [[ -n "$build_staging" ]]; then submit+=("--gcs-source-staging-dir=$build_staging"); fi
    run "${submit[@]}"
    ;;
  docker)
    export DOCKER_BUILDKIT=1
    run docker build --platform=linux/amd64 "--file=$root/templates/Dockerfile" \
      "--build-arg=LAUNCHER_TAG=$launcher_tag" "--tag=$image:$tag" "$root"
    run docker push "$image:$tag"
    ;;
  *) fail "--builder is '$builder': expected cloud-build or docker" ;;
esac

describe=(gcloud artifacts docker images describe "$image:$tag" "--project=$project" '--format=value(image_summary.digest)')
if "$dry_run"; then
  run "${describe[@]}"
  digest=DIGEST
else
  digest="$("${describe[@]}")"
  if [[ ! "$digest" =~ ^sha256:[0-9a-f]{64}$ ]]; then
    printf '%s: error: the digest of %s is unknown: got %q\n' "$(basename "$0")" "$image:$tag" "$digest" >&2
    exit 1
  fi
fi

run gcloud dataflow flex-template build "$template" "--project=$project" "--image=$image@$digest" \
  --sdk-language=PYTHON "--metadata-file=$root/templates/metadata.json"

if ! "$dry_run"; then
  printf 'image: %s\ntemplate: %s\n' "$image@$digest" "$template"
fi
