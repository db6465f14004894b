#!/usr/bin/env bash
# Install Debian's Coq, which checks the proofs. Says so loudly where that is not possible, and fails
# there if REQUIRE_COQ=1.
set -uo pipefail
command -v coqc && exit
export DEBIAN_FRONTEND=noninteractive

apt=(apt-get)
[ "$(id -u)" = 0 ] || apt=(sudo -n apt-get)
"${apt[@]}" update -q && "${apt[@]}" install -y -q --no-install-recommends coq && exit

cat >&2 <<'MESSAGE'
**********************************************************************
  Coq could not be installed (apt-get, as root or with sudo), so THE
  PROOFS WILL NOT BE CHECKED: their tests are skipped. Install the
  package coq, 8.16 or newer, by hand.
**********************************************************************
MESSAGE
[ "${REQUIRE_COQ:-}" != 1 ]
