#!/usr/bin/env bash
# Usage: npm.sh FOLDER WHAT. Installs the npm packages that the lock file of a folder names, unless they are there:
# then nothing is asked of the network. Install scripts of packages are not run. WHAT is said about them before.
set -euo pipefail
cd "$(dirname "$0")/../$1"

# The mark is written last, so what an interrupted run left half done is done again.
if [ "$(cat node_modules/.complete 2>/dev/null)" != "$(cksum <package-lock.json)" ]; then
	echo "npm.sh: installing the npm packages $2"
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	cksum <package-lock.json >node_modules/.complete
fi
