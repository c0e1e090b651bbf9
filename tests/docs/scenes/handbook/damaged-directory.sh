# A page of the first member's store is overwritten.
three
rusd put city Bern
sleep 1
stop 1
dd if=/dev/zero of="$(ls m1/member/db/gen-*/data.mdb)" bs=4096 seek=3 count=4 conv=notrunc
