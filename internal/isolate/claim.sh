# Makes a work directory that cleanup.sh has freed: the record that it is a
# build's comes first.
work=$1
mkdir -p -- "${work%/*}/" || exit
set -C # no record of another is overwritten
: >"$work.owner" || exit
mkdir -- "$work"
