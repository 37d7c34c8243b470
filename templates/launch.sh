#!/usr/bin/env bash
# Launches a job from the Flex Template.
set -euo pipefail
# shellcheck source=templates/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: templates/launch.sh --project PROJECT --region REGION --template gs://... --image IMAGE@sha256:... --worker-account EMAIL
                           --staging-location gs://... [...] -- --OPTION=VALUE ...

  --project PROJECT            the job's project
  --region REGION              the job's region
  --template gs://...          the template that build.sh wrote
  --image IMAGE@sha256:...     the image that build.sh printed
  --worker-account EMAIL       the service account that the launcher's machine and the workers run as
  --staging-location gs://...  what the job needs is put here, and with --send=uris clips while they are in flight
  --temp-location gs://...     temporary files (default: the staging location)
  --launch-as EMAIL            launch as this service account, by impersonation (default: as you)
  --network NAME               (default: the network named default)
  --subnetwork NAME            regions/REGION/subnetworks/NAME, or its URL
  --private-ips                no public addresses: the subnetwork needs Private Google Access
  --machine-type TYPE          of the workers (default: as the pipeline chooses)
  --num-workers N              (default: as the pipeline chooses)
  --labels NAME=VALUE,...      of the job, for billing reports
  --job-name NAME              (default: hear-YYYYMMDD-HHMMSS)
  --dry-run                    print the command, don't run it

What follows -- are the pipeline's own options, as parameters of the template: --OPTION=VALUE, or --OPTION for a switch.
They may hold commas and spaces. `python -m pipeline --help` and templates/metadata.json say what they mean.
TEXT
}

project='' region='' template='' image='' worker_account='' staging_location='' temp_location='' launch_as='' network=''
subnetwork='' machine_type='' num_workers='' labels='' private_ips=false
job_name="hear-$(date -u +%Y%m%d-%H%M%S)"
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h)
      usage
      exit 0
      ;;
    --)
      shift
      break
      ;;
    --dry-run)
      dry_run=true
      shift
      ;;
    --private-ips)
      private_ips=true
      shift
      ;;
    --project | --region | --template | --image | --worker-account | --staging-location | --temp-location | --launch-as | \
      --network | --subnetwork | --machine-type | --num-workers | --labels | --job-name)
      take "$@"
      shift 2
      ;;
    *) fail "unknown option '$1': see $0 --help; the pipeline's own options follow --" ;;
  esac
done
need --project my-project
need --region us-west1
need --template gs://my-bucket/templates/hear.json
need --image us-west1-docker.pkg.dev/my-project/hear/pipeline@sha256:...
need --worker-account hear-worker@my-project.iam.gserviceaccount.com
need --staging-location gs://my-bucket/staging
[[ "$image" =~ @sha256:[0-9a-f]{64}$ ]] || fail "--image is '$image': expected the name with its digest, IMAGE@sha256:..."
for option in template staging_location temp_location; do
  [[ -z "${!option}" || "${!option}" == gs://?* ]] || fail "--${option//_/-} is '${!option}': expected gs://..."
done

parameters=("sdk_container_image=$image")
for given in "$@"; do
  [[ "$given" =~ ^--([a-z0-9_]+)(=(.*))?$ ]] || fail "'$given' behind -- is no option: expected --OPTION=VALUE"
  name="${BASH_REMATCH[1]}"
  grep -q "^      \"name\": \"$name\",$" "$root/templates/metadata.json" ||
    fail "--$name is no parameter of the template: see templates/metadata.json"
  for earlier in "${parameters[@]}"; do
    [[ "${earlier%%=*}" != "$name" ]] || fail "--$name is given twice: a parameter of a template has one value"
  done
  if [[ -z "${BASH_REMATCH[2]}" ]]; then
    parameters+=("$name=true")
  else
    [[ -n "${BASH_REMATCH[3]}" ]] || fail "--$name is empty: leave it out for its default"
    parameters+=("$name=${BASH_REMATCH[3]}")
  fi
done

# gcloud takes what stands between the first two ^ as what separates parameters: something that is in none of them.
number=0
while [[ "${parameters[*]}" == *"<$number>"* ]]; do number=$((number + 1)); done
joined="${parameters[0]}"
for parameter in "${parameters[@]:1}"; do joined+="<$number>$parameter"; done

command=(
  gcloud dataflow flex-template run "$job_name"
  "--project=$project"
  "--region=$region"
  "--template-file-gcs-location=$template"
  "--service-account-email=$worker_account"
  "--staging-location=$staging_location"
  "--temp-location=${temp_location:-$staging_location}"
)
if [[ -n "$network" ]]; then command+=("--network=$network"); fi
if [[ -n "$subnetwork" ]]; then command+=("--subnetwork=$subnetwork"); fi
if "$private_ips"; then command+=(--disable-public-ips); fi
if [[ -n "$machine_type" ]]; then command+=("--worker-machine-type=$machine_type"); fi
if [[ -n "$num_workers" ]]; then command+=("--num-workers=$num_workers"); fi
if [[ -n "$labels" ]]; then command+=("--additional-user-labels=$labels"); fi
if [[ -n "$launch_as" ]]; then command+=("--impersonate-service-account=$launch_as"); fi
command+=("--parameters=^<$number>^$joined")
run "${command[@]}"
