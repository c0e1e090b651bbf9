# A store at its quota: the disk of a test is too large to be filled.
one --quota-backend-bytes 600000
for n in $(seq 9); do
    rusd put more "$(head -c 100000 /dev/zero | tr '\0' x)" || true
done
