#!/bin/bash
# Runs one command on all hosts of a Cloud TPU until it is done, on TPUs that may be taken away:
#     launch/tpu_vm.sh python -m dav.main --job=train --config=configs/student.py:vits --workdir=/dav/runs/vits --config.data.root=/dav/data
#
# Asks for the TPU if there is none, waits for it, starts the command in the same container on every
# host, and looks after it: asks for a new TPU when this one was preempted, starts the command again
# after exit code 75 or a crash, stops after 0, 2 and 65. Interrupted, it leaves the TPU at work; the
# same command goes on looking after it. When all is done:
#     launch/tpu_vm.sh delete
set -uo pipefail

# Edit here, or set them outside.
PROJECT=${PROJECT:-my-project}
ZONE=${ZONE:-us-west4-a}
NAME=${NAME:-dav}                                   # of the TPU and of its queued resource
ACCELERATOR=${ACCELERATOR:-v5litepod-256}           # v5p-128 (64 chips), v6e-64 …
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}             # v2-alpha-tpuv5, v2-alpha-tpuv6e …
SPOT=${SPOT---spot}                                 # empty: on demand
IMAGE=${IMAGE:-us-west4-docker.pkg.dev/my-project/dav/dav}
DISK=${DISK:-10.0.0.2:/dav}                         # NFS (Filestore), seen as /dav by all hosts
MAX_RESTARTS=${MAX_RESTARTS:-100}
POLL_S=${POLL_S:-60}

at=(--project="$PROJECT" --zone="$ZONE")

state() {
    gcloud compute tpus queued-resources describe "$NAME" "${at[@]}" \
        --format='value(state.state)' 2>/dev/null
}

delete() {
    gcloud compute tpus queued-resources delete "$NAME" "${at[@]}" --force --quiet
}

# Returns when the TPU is there.
acquire() {
    local now
    while true; do
        now=$(state)
        case $now in
        ACTIVE) return ;;
        '')
            # shellcheck disable=SC2086 # empty: no flag
            gcloud compute tpus queued-resources create "$NAME" "${at[@]}" --node-id="$NAME" \
                --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" $SPOT \
                --scopes=https://www.googleapis.com/auth/cloud-platform || exit 1
            ;;
        FAILED | SUSPENDED) delete || exit 1 ;;
        *)
            echo "TPU $NAME: $now"
            sleep "$POLL_S"
            ;;
        esac
    done
}

# Runs a shell command on every host; prints what they print.
everywhere() {
    gcloud compute tpus tpu-vm ssh "$NAME" "${at[@]}" --worker=all --quiet --command="$1"
}

begin() {
    everywhere "set -e
        mountpoint -q /dav || { sudo apt-get install -y nfs-common; sudo mkdir -p /dav; sudo mount $DISK /dav; }
        sudo docker inspect dav >/dev/null 2>&1 && exit 0
        sudo gcloud auth configure-docker --quiet ${IMAGE%%/*}
        sudo docker run --detach --name=dav --privileged --net=host --shm-size=64g \
            --stop-timeout=60 --volume=/dav:/dav $IMAGE $*"
}

# One word per host: `running`, or its exit code. Fails unless all answer.
codes() {
    everywhere "echo dav-code \$(sudo docker inspect --format \
        '{{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}' dav)" |
        sed -n 's/^dav-code //p'
}

if [ "${1:-}" = delete ]; then
    delete
    exit
fi
[ $# -gt 0 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2; }
command=$(printf '%q ' "$@")
restarts=0
while true; do
    acquire
    begin "$command" || { [ "$(state)" = ACTIVE ] && sleep "$POLL_S"; continue; }
    while found=$(codes) || found=''; do
        [[ $found == *running* ]] || break
        sleep "$POLL_S"
    done
    if [ -z "$found" ] || [ "$(state)" != ACTIVE ]; then
        echo "no answer from TPU $NAME ($(state))"
        sleep "$POLL_S"
        continue
    fi
    everywhere 'sudo docker logs --tail 20 dav; sudo docker rm dav >/dev/null'
    grep -qvx 0 <<<"$found" || { echo "done"; exit 0; }
    grep -qx 2 <<<"$found" && { echo "wrong command or config: not started again"; exit 2; }
    grep -qx 65 <<<"$found" && { echo "labelled, but for damaged data: not started again"; exit 65; }
    [ "$restarts" -ge "$MAX_RESTARTS" ] && { echo "started $restarts times again: giving up"; exit 1; }
    restarts=$((restarts + 1))
    echo "stopped or crashed (exit codes $(tr '\n' ' ' <<<"$found")): starting again"
done
