#!/bin/sh
# Makes the database the first time, then becomes the server.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Made aside, so that an interrupted first start leaves nothing half.
    rm -rf "$PGDATA/new"
    initdb -D "$PGDATA/new" -U guestbook --pwfile="$PASSWORD_FILE" --auth=scram-sha-256 --no-sync
    echo 'host all all all scram-sha-256' >>"$PGDATA/new/pg_hba.conf"
    echo 'CREATE DATABASE guestbook' | postgres --single -D "$PGDATA/new" postgres
    sync
    mv "$PGDATA/new"/[!P]* "$PGDATA/new"/PG_VERSION "$PGDATA"
    rm -rf "$PGDATA/new"
fi
exec "$@"
