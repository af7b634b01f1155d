# Start PostgreSQL as `postgres` images start theirs: user, database and first scripts only where there is no data yet.
set -eu
data=/var/lib/postgresql/data
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
: "${POSTGRES_PASSWORD:?set it}" "${POSTGRES_USER:=postgres}"
: "${POSTGRES_DB:=$POSTGRES_USER}"
if [ ! -s "$data/PG_VERSION" ]; then
  initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile <(printf %s "$POSTGRES_PASSWORD") \
    --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8 >/dev/null
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  pg_ctl --pgdata "$data" --wait --options "-c listen_addresses=" start >/dev/null
  run() { psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" "$@"; }
  [ "$POSTGRES_DB" = postgres ] || run --dbname postgres --command "CREATE DATABASE \"$POSTGRES_DB\""
  for script in /docker-entrypoint-initdb.d/*.sql; do
    [ ! -e "$script" ] || run --dbname "$POSTGRES_DB" --file "$script"
  done
  pg_ctl --pgdata "$data" --wait stop >/dev/null
fi
exec postgres -D "$data" -c listen_addresses=*
