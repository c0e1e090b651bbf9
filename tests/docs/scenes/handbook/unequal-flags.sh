three
rusd put city Bern
