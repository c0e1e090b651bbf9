one
for n in $(seq 20); do rusd put large "$(head -c 100000 /dev/zero | tr '\0' x)"; done
rusd compaction --physical 21
