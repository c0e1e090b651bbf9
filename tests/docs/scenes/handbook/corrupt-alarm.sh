# A value is changed in the file of the first member, whose scrub finds it some seconds after the start.
three
rusd put city Bern
rusd put needle in-a-haystack
sleep 1
stop 1
sed -i s/in-a-haystack/in-a-haybarn!/ m1/member/db/gen-*/data.mdb
member 1
for tries in $(seq 300); do
    rusd endpoint status --endpoints 127.0.0.11:2379 2>&1 | grep -q CORRUPT && break
    sleep 0.1
done
