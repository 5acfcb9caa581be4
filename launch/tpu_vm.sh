#!/bin/bash
# Runs one command on all hosts of a Cloud TPU until it is done, on TPUs that may be taken away:
#     launch/tpu_vm.sh python -m dav.main --job=train --config=configs/student.py:vits --workdir=/dav/runs/vits --config.data.root=/dav/data --config.teacher_weights=hf:depth-anything/Depth-Anything-V2-Large-hf
#
# Asks for the TPU if there is none, waits for it, starts the command in the same container on every
# host, and looks after it: asks for a new TPU when this one was preempted, starts the command again
# after exit code 75 or a crash, stops after 0, 2 and 65. Interrupted, it leaves the TPU at work; the
# same command goes on looking after it. gcloud wants the key for ssh in an agent (docs/scale.md). When
# all is done:
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
DISK=${DISK:-10.0.0.2:/dav}                         # NFS 4 (Filestore), seen as /dav by all hosts
MAX_RESTARTS=${MAX_RESTARTS:-100}
MAX_FAILURES=${MAX_FAILURES:-10}                    # in a row, to be given a TPU or to start on it
POLL_S=${POLL_S:-60}

at=(--project="$PROJECT" --zone="$ZONE")

errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
failures=0 # in a row

# Prints a field of the queued resource.
describe() {
    gcloud compute tpus queued-resources describe "$NAME" "${at[@]}" --format="value($1)" 2>"$errors"
}

# Prints its state, or NONE where there is none, or UNKNOWN where nobody knows.
state() {
    describe state.state && return
    grep -q NOT_FOUND "$errors" && echo NONE && return
    cat "$errors" >&2
    echo UNKNOWN
}

create() {
    # shellcheck disable=SC2086 # empty: no flag
    gcloud compute tpus queued-resources create "$NAME" "${at[@]}" --node-id="$NAME" \
        --accelerator-type="$ACCELERATOR" --runtime-version="$RUNTIME" $SPOT \
        --scopes=https://www.googleapis.com/auth/cloud-platform
}

delete() {
    gcloud compute tpus queued-resources delete "$NAME" "${at[@]}" --force --quiet
}

# After what may be better next time, but not for ever.
wait_or_give_up() {
    failures=$((failures + 1))
    [ "$failures" -lt "$MAX_FAILURES" ] || { echo "failed $failures times in a row: giving up"; exit 1; }
    sleep "$POLL_S"
}

# Returns when the TPU is there.
acquire() {
    local now
    while true; do
        now=$(state)
        case $now in
        ACTIVE) return ;;
        NONE) create || wait_or_give_up ;;
        SUSPENDED) delete || wait_or_give_up ;; # taken away
        FAILED)
            echo "TPU $NAME is not given: $(describe state.failedData.error.message)"
            delete
            wait_or_give_up
            ;;
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

# Starts the command on the hosts where it, or another, is not at work yet.
begin() {
    everywhere "set -e
        mountpoint -q /dav || {
            command -v mount.nfs >/dev/null || {
                sudo apt-get -qq -o DPkg::Lock::Timeout=300 update
                sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y nfs-common
            }
            sudo mkdir -p /dav
            sudo mount -o vers=4.1 $DISK /dav
        }
        case \$(sudo docker inspect --format '{{.Config.Labels.command}} {{.State.Running}}' dav 2>/dev/null) in
        '') ;;
        '$label '* | *' true') exit 0 ;;
        *) sudo docker rm dav >/dev/null ;;
        esac
        echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null
        sudo gcloud auth configure-docker --quiet ${IMAGE%%/*}
        sudo docker run --detach --name=dav --label=command=$label --pull=always --privileged \
            --net=host --shm-size=64g --stop-timeout=60 --volume=/dav:/dav $IMAGE $command"
}

# One word per host: `running`, its exit code, `none` if there is nothing, `other` if it is another
# command's.
codes() {
    everywhere "echo dav-code \$(sudo docker inspect --format \
        '{{.Config.Labels.command}} {{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}' \
        dav 2>/dev/null || echo $label none)" |
        sed -n "s/^dav-code $label //p; s/^dav-code .* .*/other/p"
}

if [ "${1:-}" = delete ]; then
    delete
    exit
fi
[ $# -gt 0 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
command=$(printf '%q ' "$@")
label=$(cksum <<<"$command" | cut -d ' ' -f 1)
restarts=0
while true; do
    acquire
    begin || { [ "$(state)" != ACTIVE ] || wait_or_give_up; continue; }
    while found=$(codes) || found=''; do
        [[ $found == *running* ]] || break
        failures=0
        sleep "$POLL_S"
    done
    if [ -z "$found" ] || [ "$(state)" != ACTIVE ]; then
        echo "no answer from TPU $NAME ($(state))"
        sleep "$POLL_S"
        continue
    fi
    grep -qx other <<<"$found" && { echo "TPU $NAME is at work on another command: let it finish, or: $0 delete"; exit 2; }
    grep -qvx none <<<"$found" || { echo "nothing was started on TPU $NAME"; wait_or_give_up; continue; }
    failures=0
    everywhere 'sudo docker logs --tail 20 dav; sudo docker rm dav >/dev/null'
    grep -qvx 0 <<<"$found" || { echo "done"; exit 0; }
    grep -qx 2 <<<"$found" && { echo "wrong command or config: not started again"; exit 2; }
    grep -qx 65 <<<"$found" && { echo "labelled, but for damaged data: not started again"; exit 65; }
    [ "$restarts" -ge "$MAX_RESTARTS" ] && { echo "started $restarts times again: giving up"; exit 1; }
    restarts=$((restarts + 1))
    echo "stopped or crashed (exit codes $(tr '\n' ' ' <<<"$found")): starting again"
done
