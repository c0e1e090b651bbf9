# A byte of the first member's log is overwritten.
three
rusd put city Bern
sleep 1
stop 1
printf X | dd of="$(ls m1/member/wal/*.wal)" bs=1 seek=300 conv=notrunc
