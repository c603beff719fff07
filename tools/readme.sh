#!/usr/bin/env bash
# Usage: readme.sh. Does the README from top to bottom, as a new user would, and checks what each command
# prints. The commands come from the README itself: its indented blocks, by section and number. It tells how
# long each step took. It is started by hand, best on a fresh machine, or with empty caches:
#
#     env -i PATH="$PATH" HOME="$(mktemp -d)" tools/readme.sh
#
# It needs what the README asks for: Go, make, curl, Node and npm, and the ports 1153, 8080 and 9090. It does
# not do what needs an account at Liveblocks or an hour: the tunnel, the clients (a test runs them) and
# 'make test'.
set -uo pipefail
cd "$(dirname "$0")/.."
readme=README.md
work=$(mktemp -d)
touch "$work/failures" # steps run in subshells too
started=()

# Everything that was started ends with this script, children first: npx does not end what it started. What has a
# process group of its own, such as the database of the demo, is ended by its parent, as after Ctrl-C.
group=$(ps -o pgid= -p $$)
end() {
	local pid
	for pid in "$@"; do
		[ "$(ps -o pgid= -p "$pid")" = "$group" ] || continue
		# shellcheck disable=SC2046
		end $(ps -o pid= --ppid "$pid")
		kill -INT "$pid" 2>/dev/null
	done
}
cleanup() {
	[ ${#started[@]} -eq 0 ] || end "${started[@]}"
	wait
	rm -rf "$work" /tmp/mirror-dev
}
trap cleanup EXIT

# What answers already is not what the README starts.
for port in 1153 8080 9090; do
	if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
		echo "readme.sh: something listens on port $port already; stop it first" >&2
		exit 2
	fi
done

# block SECTION NUMBER prints an indented block of a section, without its indent.
block() {
	awk -v section="$1" -v number="$2" '
		/^## / { here = ($0 == "## " section); blocks = 0; inside = 0; next }
		!here { next }
		/^```/ { fenced = !fenced; next }
		fenced { next }
		/^    / {
			if (!inside) { blocks++; inside = 1 }
			if (blocks == number) { sub(/^ +/, ""); print }
			next
		}
		!/^ *$/ { inside = 0 }
	' "$readme"
}

# step NAME WANT COMMAND... runs a command and checks that it succeeds and prints what the extended regular
# expression WANT matches.
step() {
	local name=$1 want=$2 begin=$SECONDS out status
	shift 2
	out=$("$@" 2>&1)
	status=$?
	if [ $status -eq 0 ] && grep -Eq -- "$want" <<<"$out"; then
		printf 'ok   %4d s  %s\n' $((SECONDS - begin)) "$name"
	else
		echo "$name" >>"$work/failures"
		printf 'FAIL %4d s  %s (exit %d, want %s)\n%s\n' $((SECONDS - begin)) "$name" $status "$want" "$out"
	fi
}

# background NAME TEXT starts commands, and waits for a page to answer.
background() {
	local name=$1 text=$2 url=$3 limit=$4 begin=$SECONDS
	bash -c "shopt -s expand_aliases; $prelude
$text" >"$work/$name.log" 2>&1 &
	started+=($!)
	until curl -fs "$url" >/dev/null; do
		if [ $((SECONDS - begin)) -ge "$limit" ] || ! kill -0 "${started[-1]}" 2>/dev/null; then
			echo "$name" >>"$work/failures"
			printf 'FAIL %4d s  %s\n' $((SECONDS - begin)) "$name"
			tail -20 "$work/$name.log"
			return 1
		fi
		sleep 0.5
	done
	printf 'ok   %4d s  %s answers\n' $((SECONDS - begin)) "$name"
}

# stop NAME ends the last thing that was started, and checks what it has printed.
stop() {
	end "${started[-1]}"
	wait "${started[-1]}" 2>/dev/null
	unset 'started[-1]'
	step "$1 ends" "$2" cat "$work/$1.log"
}

# each WANT TEXT runs the commands of a block one by one.
each() {
	local want=$1 line
	while IFS= read -r line; do
		[ -z "$line" ] || step "$line" "$want" bash -c "shopt -s expand_aliases; $prelude
$line"
	done
}

prelude=""
section="See it in 60 seconds"
background "make run" "$(block "$section" 1)" http://127.0.0.1:8080/readyz 1200 || exit 1
sleep 5 # some edits
block "$section" 2 | each '^[{[]'
block Read 1 | each '^[{[]'
prelude=$(block Read 2 | grep '^alias')
block Read 2 | grep -v '^alias' | each 'liveblocks.mirror.v1|roomId'
if command -v psql >/dev/null; then
	database=$(grep -o 'psql -h .*' "$work/make run.log" | head -1)
	while IFS= read -r line; do
		step "$line" 'rows?\)' bash -c "$database -c \"\$1\"" _ "$line"
	done < <(block Read 3)
fi
stop "make run" .

section=Install
step "$(block $section 1)" '' bash -c "$(block $section 1)"
prelude=$(block $section 2)
step version '^liveblocks-mirror .' bash -c "shopt -s expand_aliases; $prelude
mirror version"

section="Try it with real input, without an account"
background "dev server" "$(block "$section" 1)" http://127.0.0.1:1153/health 300
rm -rf /tmp/mirror-dev
background "serve" "$(block "$section" 2)" http://127.0.0.1:8080/readyz 300
prelude+="
$(block "$section" 3 | grep '^lb()')"
block "$section" 3 | grep '^lb ' | each '"id"|Plan'
block "$section" 3 | grep '^mirror backfill' | each 'done: 1 rooms listed'
block "$section" 3 | grep '^curl' | each '"title":"Plan"'
block "$section" 3 | grep '^mirror verify' | each ', 0 differences'

section="Point Liveblocks at it"
block "$section" 2 | sed 's/ *#.*//' | each 'done|differences'
stop serve 'msg=ready'

section=Tests
while IFS= read -r line; do
	step "make -n: $line" . bash -c "make -n ${line#make }"
done < <(block $section 1 | sed 's/ *#.*//')

failures=$(wc -l <"$work/failures")
echo "$SECONDS s in all, $failures failures"
[ "$failures" -eq 0 ]
