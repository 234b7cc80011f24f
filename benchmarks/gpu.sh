#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one, PyTorch and no network:
#
#   bash benchmarks/gpu.sh [MINUTES [PART ...]]        9; parts: correctness speed training
#   GPU_REHEARSAL=1 bash benchmarks/gpu.sh 3           the same on a CPU at toy sizes
#
# OUT      folder of what comes out: summary.txt, results.tar.gz, and training.00, ... (benchmarks/results/gpu)
# PYTHON   (python3)     COMFYUI_PATH, COMFYUI_PYTHON   a ComfyUI checkout and its Python, if there is one
# DATA     pictures to train on (icons-64.npz; benchmarks/carry.py pictures makes a small one)     CONFIG   (icons-64)     TRAIN_SET   KEY=VALUE ... of `train --set`
# CARRIED  folder with an earlier call's training.00, ...: the run goes on from there (OUT)
#
# A command that the time does not suffice for is left out or stopped, and summary.txt says so; what is done is kept.
set -uo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-9}
parts=("${@:2}")
[ ${#parts[@]} -gt 0 ] || parts=(correctness speed training)
out=${OUT:-benchmarks/results/gpu}
carried=${CARRIED:-$out}
python=${PYTHON:-python3}
data=${DATA:-icons-64.npz}
config=${CONFIG:-icons-64}
rehearsal=${GPU_REHEARSAL:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/results"
out=$(cd "$out" && pwd)
export OUT=$work/results PYTHONUNBUFFERED=1 TQDM_DISABLE=1
read -ra train_set <<<"${TRAIN_SET:-}"

device=cuda small=() rounds=(--rounds 20) every=0.1
if [ -n "$rehearsal" ]; then
    export TORCH_COMPILE_DISABLE=1 # compiling for a CPU takes minutes and shows nothing
    device=cpu small=(--toy) rounds=(--rounds 1) every=0.5
elif ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "There is no GPU that PyTorch can use; GPU_REHEARSAL=1 runs everything on the CPU at toy sizes."
    exit 1
fi

say() { echo "$*" | tee -a "$out/summary.txt"; }
now() { date +%s; }

# run NAME SECONDS COMMAND ...: at most so long, and no longer than the part; its output in results/NAME.log
run() {
    local name=$1 most=$2 left started code
    shift 2
    left=$((deadline - $(now)))
    [ "$left" -lt "$most" ] && most=$left
    if [ "$most" -lt 5 ]; then
        say "  $name: left out, no time"
        return
    fi
    started=$(now)
    timeout -k 5 "$most" "$@" >"$work/results/$name.log" 2>&1
    code=$?
    case $code in
    0) say "  $name: done in $(($(now) - started)) s" ;;
    124 | 137) say "  $name: stopped after $most s" ;;
    *) say "  $name: FAILED ($code): $(tail -n 1 "$work/results/$name.log")" ;;
    esac
    [ -n "${together:-}" ] || gather
}

gather() { tar -czf "$out/results.tar.gz" -C "$work" results; }

# beside run|bench|host ...: the same at once with others; `wait` for all, then `gather`
beside() { (together=yes; "$@") & }

bench() { # bench NAME SECONDS FILE OPTION ...
    local name=$1 most=$2 file=$3
    shift 3
    run "$name" "$most" "$python" "benchmarks/$file.py" --device "$device" "$@"
}

# few "1 8 64": all of it, or the first for a rehearsal
few() { if [ -n "$rehearsal" ]; then echo "${1%% *}"; else echo "$1"; fi; }
read -ra two <<<"$(few "1 8")"
read -ra four <<<"$(few "1 4")"
read -ra more <<<"$(few "1 8 64")"
read -ra sides <<<"$(few "32 64 128")"
blocks=(--compile blocks "${small[@]}" "${rounds[@]}" --dtypes bfloat16)
modes=("${small[@]}" "${rounds[@]}") both=(--models SiT-XL/2 TR-DiT-2.5B)

# Nothing is timed here, so all of it runs at once. What the tables of `speed` will need compiled is compiled beside it:
# they find it in the cache of inductor.
correctness() {
    local -x OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=4
    local networks=(trdit xut microdit dit prx maskdit sprint srdit) network
    [ -n "$rehearsal" ] && networks=(dit xut)
    host_cases
    [[ " ${parts[*]} " == *" speed "* ]] && compile_ahead
    for network in "${networks[@]}"; do
        beside bench "correctness_$network" 150 correctness --networks "$network" --name "correctness_$network"
    done
    wait
    gather
}

host_cases() {
    [ -n "${COMFYUI_PATH:-}" ] || { say "  host: left out, COMFYUI_PATH names no checkout"; return; }
    local way all=(SG "CFG + SG" "SG beside CFG") rules
    run checkpoint 60 "$python" -c 'import sys; from pathlib import Path
sys.path[:0] = [".", "tests/host", "tests/helpers"]
from graphs import write_checkpoint
write_checkpoint(Path(sys.argv[1]))' "$work/hosted.safetensors"
    if [ -n "$rehearsal" ]; then
        beside host cpu --cpu
    else
        beside host normal # which has no flag
        beside host low --lowvram
        beside host no --novram
    fi
    beside run host_families 150 "${COMFYUI_PYTHON:-$python}" benchmarks/host_families.py "$COMFYUI_PATH" --device "$device"
    for way in plain fp8 streams dynamic compiled cudagraphs; do
        rules=("${all[@]}")
        case $way in compiled | cudagraphs) rules=(SG) ;; esac # every rule and count of kept tokens is compiled for itself
        beside run "host_$way" 150 "${COMFYUI_PYTHON:-$python}" benchmarks/host_ways.py "$COMFYUI_PATH" --way "$way" \
            --device "$device" --rules "${rules[@]}"
    done
}

host() { # host NAME [FLAG]: the cases that a server cannot be made to do on demand, in one of its memory modes
    local name=host_memory_$1
    COMFYUI_FLAGS=${2:-} run "$name" 150 "${COMFYUI_PYTHON:-$python}" tests/host/inside.py \
        "$COMFYUI_PATH" "$PWD" "$work/hosted.safetensors" SG "CFG + SG" ICG foreign error
    grep -q '"error":' "$work/results/$name.log" && say "  $name: a case ended with an error, see its log"
}

compile_ahead() {
    local batch model
    for batch in "${two[@]}"; do ahead TR-DiT-2.5B "$batch"; done
    for batch in "${more[@]}"; do ahead SiT-XL/2 "$batch"; done
    for model in HDM PRX; do
        for batch in "${four[@]}"; do ahead "$model" "$batch"; done
    done
}

ahead() { # ahead MODEL BATCH: compiled as for the tables; the times that are measured beside others are thrown away
    local name=compile_${1//\//-}_$2
    beside bench "$name" 150 steps "${blocks[@]}" --rounds 1 --models "$1" --batches "$2" --name "../$name"
}

speed() {
    local -x OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=4 # as it was compiled ahead: the cache tells threads apart
    # what was aimed at comes first, so that it is there if the time runs out
    bench steps_trdit 120 steps "${blocks[@]}" --models TR-DiT-2.5B --batches "${two[@]}" --name steps_trdit
    bench steps_xl 120 steps "${blocks[@]}" --models SiT-XL/2 --batches "${more[@]}" --name steps_xl
    bench overhead 60 overhead "${small[@]}" "${both[@]}"
    bench steps_families 100 steps "${blocks[@]}" --models HDM PRX --batches "${four[@]}" --name steps_families
    bench profile 60 profile_step "${small[@]}" --steps 5 "${both[@]}" --batches "${two[@]}"
    bench launches 60 profile_step "${small[@]}" --steps 5 "${both[@]}" --compile blocks --name launches
    bench modes_trdit 120 modes "${modes[@]}" --model TR-DiT-2.5B --batches "${two[@]}" --name modes_trdit \
        --modes "eager, CUDA graph" "blocks, CUDA graph" eager
    [ -n "${COMFYUI_PATH:-}" ] && host_models
    bench modes_xl 150 modes "${modes[@]}" --model SiT-XL/2 --batches "${more[@]}" --name modes_xl
    bench throughput_map 120 throughput_map "${modes[@]}" --model TR-DiT-2.5B --every "$every"
    bench scaling 120 scaling "${modes[@]}" --model SiT-XL/2 --sizes "${sides[@]}" --batches "${four[@]}"
    bench steps_sizes 120 steps "${blocks[@]}" --models SiT-S/2 SiT-B/2 SiT-L/2 --batches "${more[@]}" --name steps_sizes
    training_step
    [ -n "$rehearsal" ] && say "  These figures are those of toys on a CPU:"
    "$python" benchmarks/targets.py "$work/results" | tee -a "$out/summary.txt"
}

training_step() {
    [ -n "$rehearsal" ] && return
    [ -e "$data" ] || { say "  training_step: left out, there are no pictures at $data (DATA)"; return; }
    run training_step 120 "$python" benchmarks/training_step.py "$data" --config "$config" --set "${train_set[@]}"
}

host_models() {
    local size=(--hidden 3072 --depth 3)
    [ -n "$rehearsal" ] && size=(--hidden 128 --depth 2 --side 16 --repeats 1)
    local flux=("${COMFYUI_PYTHON:-$python}" benchmarks/host_models.py --comfyui "$COMFYUI_PATH" --device "$device" "${size[@]}")
    run host_models 120 "${flux[@]}"
    [ -n "$rehearsal" ] && return
    run host_models_1024 120 "${flux[@]}" --side 128 --name host_models_1024
    local inside=("${COMFYUI_PYTHON:-$python}" benchmarks/in_host.py "$COMFYUI_PATH" --model SiT-XL/2 --device cuda)
    run in_host 60 "${inside[@]}" --batch 4
    run in_host_graphs 90 "${inside[@]}" --compile cudagraphs
}

training() {
    local folder=$work/training left
    if [ -n "$rehearsal" ]; then
        data=$work/pictures
        "$python" -c 'import sys; from pathlib import Path; from PIL import Image
for i in range(24):
    (folder := Path(sys.argv[1]) / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (10 * i, 255 - 10 * i, 40)).save(folder / f"{i}.png")' "$data"
        config=icons-32 train_set=(steps=4 decay=2 warmup=1 batch=4 held_out=6 early=1 network.width=32 network.depth=4 network.heads=2)
    fi
    if [ ! -e "$data" ]; then
        say "  training: left out, there are no pictures at $data (DATA)"
        return
    fi
    "$python" benchmarks/carry.py unpack "$carried" "$folder" | tee -a "$out/summary.txt"
    left=$((deadline - $(now) - 70)) # validation, the last checkpoint and packing need the rest
    [ "$left" -lt 5 ] && left=5
    run training $((left + 40)) "$python" -m sparse_model train "$data" --config "$config" --out "$folder" \
        --minutes "$("$python" -c "print($left / 60)")" --every 500 --set "${train_set[@]}"
    [ -d "$folder/state" ] || return
    "$python" benchmarks/carry.py pack "$folder" "$out" | tee -a "$out/summary.txt"
    [ -f "$folder/log.jsonl" ] && tail -n 1 "$folder/log.jsonl" | tee -a "$out/summary.txt"
}

declare -A share=([correctness]=2 [speed]=3 [training]=3)
seconds=$("$python" -c "print(round(60 * $minutes))")
total=0
for part in "${parts[@]}"; do
    [ -n "${share[$part]:-}" ] || { echo "There is no part '$part'; use correctness, speed, training."; exit 2; }
    total=$((total + share[$part]))
done
: >"$out/summary.txt"
say "$("$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")'), $(date -u +%F)"
deadline=$(now)
for part in "${parts[@]}"; do # what a part does not need, the next ones may have
    deadline=$((deadline + seconds * share[$part] / total))
    say "$part, within $((deadline - $(now))) s"
    "$part"
done
tar -czf "$out/results.tar.gz" -C "$work" results
say "all in $out"
