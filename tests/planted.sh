#!/usr/bin/env bash
# Plants one bug at a time and runs the test that must find it: `./dev planted`. docs/planted.md says what they are.
#
#   tests/planted.sh          all of them; builds nearly everything once more, in target/planted
#   tests/planted.sh sim      those that the simulation of consensus finds: half a minute
#   tests/planted.sh FEATURE  that one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=ci
target=$PWD/target
# Those with a planted bug, and the sound ones they are held against, lie apart from what anybody else runs.
apart=$target/planted
log=$target/planted.log

# feature, crate, test target, test
bugs='planted-ack-before-flush ironpage-consensus simulation no_acknowledged_byte_is_lost
planted-vote-not-persisted ironpage-consensus simulation a_term_has_one_leader
planted-drop-xid-pin ironpage-compute system failure_cases::a_cursor_does_not_see_later_inserts_of_its_transaction
planted-wrong-redo-byte ironpage-pageserver system planted::redone_pages_are_those_that_were_written
planted-punch-before-ack ironpage-compute system planted::what_the_pageserver_lacks_is_read_without_it'

say() { printf '%s\n' "$*" >&2; }

# Programs and libraries in target/planted/bin/NAME; with FEATURE of CRATE if given.
assemble() {
    local name=$1 feature=${2:-} crate=${3:-} bin=$apart/bin/$1 features=()
    mkdir -p "$bin"
    cargo build --locked -q --profile "$profile" --target-dir "$apart" --workspace --bins
    if [ "$crate" = ironpage-pageserver ]; then
        cargo build --locked -q --profile "$profile" --target-dir "$apart" -p "$crate" --bins --features "$feature"
    fi
    cp "$apart/$profile"/{ironpage,safekeeper,pageserver} "$bin/"
    if [ "$crate" = ironpage-compute ]; then features=("FEATURES=$feature"); fi
    make --no-print-directory -s -C compute-ext PROFILE="$profile" TARGET_DIR="$apart" SO="$bin/ironpage.so" "${features[@]}"
    make --no-print-directory -s -C pageserver/redo-worker
    cp pageserver/redo-worker/redo.so "$bin/"
}

# passes, fails or does not run: what becomes of a test, with a feature planted or none.
outcome() {
    local feature=$1 crate=$2 kind=$3 test=$4 said
    if [ "$kind" = system ]; then
        assemble "${feature:-sound}" "$feature" "$crate" >&2
        said=$(IRONPAGE_BIN=$apart/bin/${feature:-sound} cargo test --locked -q --profile "$profile" --target-dir "$target" \
            -p ironpage-tests --test "$kind" -- --test-threads=1 --exact "$test" 2>&1) || true
    else
        said=$(cargo test --locked -q --profile "$profile" --target-dir "$target" -p "$crate" --test "$kind" \
            ${feature:+--features "$feature"} -- --exact "$test" 2>&1) || true
    fi
    printf '=== %s %s\n%s\n' "${feature:-sound}" "$test" "$said" >>"$log"
    case $said in
        *"test result: ok. 1 passed"*) echo passes ;;
        *"test result: FAILED. 0 passed; 1 failed"*) echo fails ;;
        *) echo "does not run" ;;
    esac
}

wanted=${1:-all}
missed=0
ran=0
rows=$(printf '%-28s %-80s %-8s %s' "planted" "test" "sound" "planted")
: >"$log"
while read -r feature crate kind test; do
    case $wanted in
        all | "$feature" | "${kind/simulation/sim}") ;;
        *) continue ;;
    esac
    say "planted: $feature"
    ran=$((ran + 1))
    sound=$(outcome "" "$crate" "$kind" "$test")
    planted=$(outcome "$feature" "$crate" "$kind" "$test")
    [ "$sound/$planted" = passes/fails ] || missed=$((missed + 1))
    rows+=$(printf '\n%-28s %-80s %-8s %s' "$feature" "$test" "$sound" "$planted")
done <<<"$bugs"
if [ "$ran" -eq 0 ]; then
    say "planted: there is no $wanted; there are: sim $(cut -d' ' -f1 <<<"$bugs" | xargs)"
    exit 2
fi
say "$rows"
if [ "$missed" -gt 0 ]; then
    say "planted: $missed of these did not go as they must (passes, fails); what the tests said is in $log"
    exit 1
fi
