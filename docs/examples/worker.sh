#!/usr/bin/env bash
# A worker that reaches nothing but a front end: bash, curl and tar. DISTCI_URL says where, DISTCI_TOKEN as whom, DISTCI_KIND what it does.
work=$(mktemp -d) && cd "$work" && trap 'kill -KILL -- -$! 2> /dev/null; rm -rf "$work"' EXIT && trap exit TERM INT || exit
(umask 077; echo "Authorization: Bearer $DISTCI_TOKEN" > token) && unset DISTCI_TOKEN

call() { # METHOD PATH [OPTION...]: asks until there is an answer; fails when that is a refusal. Every call may be repeated.
    local told pause=1
    until told=$(curl -sS -m 120 -X "$1" -H @token -o answer -w '%{http_code} %header{location}' "$DISTCI_URL$2" "${@:3}") && [[ $told != 5* ]]; do
        echo "$1 $2: ${told/#000*/no answer} $(cut -c -300 answer); asked again in $pause s" >&2; sleep $pause; pause=$((pause < 8 ? 2 * pause : 8))
    done
    location=${told#* }; [[ $told == 2* ]] || { echo "$1 $2: $told $(< answer)" >&2; false; }
}
send_log() { # whatever it has grown by; the answer says where the next bytes belong
    while [ "$(stat -c %s log)" -gt "$sent" ]; do
        tail -c +$((sent + 1)) log | head -c 1000000 > chunk
        call PUT "$url/log?offset=$sent" -T chunk && sent=$(tr -dc 0-9 < answer) || return
    done
}
while :; do
    wanted="{\"kinds\": [\"${DISTCI_KIND:-shell}\"], \"wait_s\": 30}"
    call POST /api/v1/claims -H "Idempotency-Key: $(< /proc/sys/kernel/random/uuid)" --json "$wanted" || { sleep 1; continue; }
    url=$location sent=0 stop=''; [ "$url" ] || continue
    mv answer claim; rm -rf workspace; mkdir workspace; : > log
    { call GET "$url/workspace" && tar -xf answer -C workspace && call GET "$url/prelude" && mv answer prelude &&
        call GET "$url/script" && mv answer script && chmod +x script; } || continue
    (cd workspace && exec env -i PATH="$PATH" HOME="$work" setsid bash -c '. ../prelude; exec "$0"' "$work/script") < /dev/null > log 2>&1 &
    while sleep 0.5; [ ! "$stop" ] && kill -0 $! 2> /dev/null; do
        send_log && call POST "$url/heartbeat" || { stop=lost; break; }
        case $(< answer) in *cancelled*) stop=cancelled ;; *timed-out*) stop=timed-out ;; esac
    done
    [ "$stop" ] && kill -KILL -- -$! $! 2> /dev/null; wait $!; status=$?; kill -KILL -- -$! 2> /dev/null
    [ "$stop" = lost ] && continue
    [ "$status" = 0 ] && verdict=passed || verdict=failed
    send_log && if grep -q '"is_workspace_wanted": true' claim; then tar -C workspace -cf tar . && call PUT "$url/workspace" -T tar; fi &&
        call PUT "$url/outcome" --json "{\"verdict\": \"${stop:-$verdict}\", \"exit_status\": $status}"
done
