#!/usr/bin/env bash
# Usage: build.sh VERSION [FILE]. Builds the program, by default as bin/liveblocks-mirror, and shows the progress: the first time, go downloads and
# compiles a few hundred packages, of which it says nothing by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

# progress TOTAL counts the packages that go names when it compiles them, and passes on the rest.
progress() {
	local line done=0
	while IFS= read -r line; do
		if [[ $line == *[[:space:]:]* ]]; then
			echo "$line"
			continue
		fi
		((done += 1))
		[ "$done" != 1 ] || echo "compiling up to $1 packages, which takes a few minutes the first time"
		[ ! -t 2 ] || printf '\r%d compiled ' "$done"
	done >&2
	[ "$done" = 0 ] || [ ! -t 2 ] || printf '\r               \r' >&2
}

main=./server/cmd/liveblocks-mirror
total=$(go list -deps $main | wc -l)
CGO_ENABLED=0 go build -v -trimpath -ldflags "-s -w -X main.version=$1" -o "${2:-bin/liveblocks-mirror}" $main 2>&1 | progress "$total"
