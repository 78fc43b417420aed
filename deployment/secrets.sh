#!/bin/sh
# secrets.sh FOLDER: makes what compose.yaml and the Secrets of kubernetes/ hold, once each; what is
# there already is kept. COMMAND makes tokens (default: ibinn-serve).
set -eu

folder=${1:?say where: secrets.sh FOLDER}
serve=${COMMAND:-ibinn-serve}

umask 077
mkdir -p "$folder"

# made NAME: whether FOLDER/NAME has to be made. Containers read these files as users of their own,
# so the files are readable and the folder is not.
absent() { [ ! -s "$folder/$1" ]; }
keep() { chmod 644 "$folder/$1.new" && mv "$folder/$1.new" "$folder/$1" && echo "made $folder/$1"; }

for name in postgres_password grafana_password receipt.key; do
    if absent "$name"; then
        openssl rand -hex 32 >"$folder/$name.new"
        keep "$name"
    fi
done

# Settings that are secret: the database's address holds its password.
if absent settings.toml; then
    printf 'records = "postgresql+psycopg://ibinn:%s@postgres/ibinn"\n' \
        "$(cat "$folder/postgres_password")" >"$folder/settings.toml.new"
    keep settings.toml
fi

# One token for the console, one for whoever operates: the server keeps their sha256 only.
token() {
    name=$1
    shift
    if absent "$name.token"; then
        $serve token new --name "$name" --file "$folder/tokens.toml" "$@" >"$folder/$name.token.new"
        keep "$name.token"
        chmod 644 "$folder/tokens.toml"
    fi
}
token console --role classify --role explain --role feedback
token operator --role classify --role explain --role feedback --role audit --role admin
chmod 600 "$folder/operator.token"
