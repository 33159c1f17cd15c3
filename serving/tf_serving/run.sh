#!/usr/bin/env bash
# Runs TensorFlow Serving in its official container, with the flags of `python -m serving.serve`.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: run.sh --model_name=NAME --model_base_path=DIRECTORY [options]
       run.sh --model_config_file=FILE --models_dir=DIRECTORY [options]

  --model_name=NAME           the name that clients use                   (MODEL_NAME)
  --model_base_path=DIR       parent directory of the versions            (MODEL_BASE_PATH)
  --model_config_file=FILE    several models, see models.config           (MODEL_CONFIG_FILE)
  --models_dir=DIR            becomes /models, with --model_config_file   (MODELS_DIR)
  --port=8500                 gRPC port on this machine                   (PORT)
  --rest_api_port=8501        REST port on this machine                   (REST_API_PORT)
  --host=127.0.0.1            address to listen on                        (HOST)
  --image=IMAGE               by default tensorflow/serving:latest        (TF_SERVING_IMAGE)
  --batching                  batches requests, see README.md             (BATCHING=1)
  --dry_run                   only prints the command
  -- ARGUMENTS                passed to tensorflow_model_server
TEXT
}

fail() {
  echo "run.sh: $1" >&2
  exit 1
}

name=${MODEL_NAME:-} base=${MODEL_BASE_PATH:-}
config_file=${MODEL_CONFIG_FILE:-} models=${MODELS_DIR:-}
port=${PORT:-8500} rest_port=${REST_API_PORT:-8501} host=${HOST:-127.0.0.1}
image=${TF_SERVING_IMAGE:-tensorflow/serving:latest} batching=${BATCHING:-} dry_run=

while (($#)); do
  case $1 in
    --model_name=*) name=${1#*=} ;;
    --model_base_path=*) base=${1#*=} ;;
    --model_config_file=*) config_file=${1#*=} ;;
    --models_dir=*) models=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --rest_api_port=*) rest_port=${1#*=} ;;
    --host=*) host=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --batching) batching=1 ;;
    --dry_run) dry_run=1 ;;
    -h | --help) usage && exit ;;
    --) shift && break ;;
    *) usage >&2 && fail "unknown argument $1" ;;
  esac
  shift
done

absolute() {
  [[ -e $1 ]] || fail "$1 does not exist"
  (cd "$(dirname "$1")" && echo "$PWD/$(basename "$1")")
}

here=$(absolute "$(dirname "${BASH_SOURCE[0]}")")
command=(docker run --rm --init
  --publish "$host:$port:8500" --publish "$host:$rest_port:8501"
  --mount "type=bind,source=$here,target=/config,readonly")
# The container's own start script adds the ports, the name and the base path.
arguments=(--monitoring_config_file=/config/monitoring.config --file_system_poll_wait_seconds=1)

if [[ -n $config_file ]]; then
  [[ -n $models ]] || fail "--model_config_file also needs --models_dir, which becomes /models"
  config_file=$(absolute "$config_file")
  models=$(absolute "$models")
  command+=(--mount "type=bind,source=$models,target=/models,readonly"
    --mount "type=bind,source=$config_file,target=/models.config,readonly")
  arguments+=(--model_config_file=/models.config --model_config_file_poll_wait_seconds=60)
else
  [[ -n $name && -n $base ]] || { usage >&2 && fail "--model_name and --model_base_path are needed"; }
  [[ -d $base ]] || fail "$base is not a directory; export a model with python -m serving.export"
  base=$(absolute "$base")
  command+=(--mount "type=bind,source=$base,target=/models/$name,readonly" --env "MODEL_NAME=$name")
fi
if [[ -n $batching ]]; then
  arguments+=(--enable_batching --batching_parameters_file=/config/batching_parameters.txt)
fi
command+=("$image" "${arguments[@]}" "$@")

if [[ -n $dry_run ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
command -v docker >/dev/null || fail "docker is not installed; see README.md for the command"
exec "${command[@]}"
