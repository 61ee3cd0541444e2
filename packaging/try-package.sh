#!/usr/bin/env bash
# Installs a Debian package, starts the program as its unit would, talks to it, upgrades to a second package,
# removes and purges: packaging/try-package.sh FIRST.deb SECOND.deb
# As root, on a machine where it is not installed. Nothing is left behind.
set -euo pipefail

# In a network of its own, where all ports are free, and with a /run of its own, where no systemd is and no
# other server has its sockets. A container may have no right to make them; see below.
apart=(unshare --net --mount --)
if [ -z "${APART:-}" ] && "${apart[@]}" true 2>/dev/null; then
    APART=1 exec "${apart[@]}" "$0" "$@"
fi

first=$1 second=$2
config=/etc/reactor/reactor.toml
unit=/usr/lib/systemd/system/reactor.service
run=/run/reactor
pid=

fail() { printf 'try-package: %s\n' "$*" >&2; exit 1; }
quiet_dpkg() { DEBIAN_FRONTEND=noninteractive dpkg "$@" </dev/null; }
installed() { dpkg-query -W -f '${Version}' reactor; }
ours() { find /etc /usr /var -xdev -path /var/cache -prune -o -path '*reactor*' -print | sort; }

stop() {
    [ -z "$pid" ] && return
    kill "$pid"
    wait "$pid" || fail "the program ended with status $?"
    pid=
}
clean() {
    status=$?
    [ -n "$pid" ] && kill "$pid"
    dpkg -P reactor >/dev/null 2>&1 || true
    rm -rf "$run"
    exit $status
}

# Starts what the unit starts, with the folder and the rights that it would have.
start() {
    local command
    command=$(sed -n 's/^ExecStart=//p' "$unit")
    [ -n "$command" ] || fail "$unit starts nothing"
    install -d -o nobody -m 0755 "$run"
    ready=$(mktemp)
    # shellcheck disable=SC2086  # They are words.
    setpriv --reuid=nobody --regid=nogroup --clear-groups --no-new-privs env -i PATH=/usr/bin:/bin \
        RUNTIME_DIRECTORY="$run" $command >"$ready" &
    pid=$!
    for _ in $(seq 200); do
        [ -s "$ready" ] && break
        kill -0 "$pid" 2>/dev/null || fail "the program does not start"
        sleep 0.05
    done
    cat "$ready"
    rm "$ready"
}
says() {
    local said
    said=$(printf '%s\nbye\n' "$2" | timeout 10 nc -N 127.0.0.1 "$1") || fail "nobody answers at port $1"
    grep -qxF "$3" <<<"$said" || fail "port $1 said: $said"
}

[ "$(id -u)" = 0 ] || fail "it takes root"
dpkg-query -W reactor >/dev/null 2>&1 && fail "reactor is installed already"
if [ -n "${APART:-}" ]; then
    ip link set lo up
    mount -t tmpfs none /run
else
    # A port that is taken is said by the program.
    [ ! -e /run/systemd/system ] || fail "systemd would start the program: it takes CAP_SYS_ADMIN to be apart from it"
    run=$(mktemp -d)
fi
before=$(ours)
trap clean EXIT
# After the command that runs.
trap "exit 1" INT TERM

quiet_dpkg -i "$first"
[ -z "$(dpkg -V reactor)" ] || fail "not all is installed as packed: $(dpkg -V reactor)"
old=$(installed)
for file in "$unit" "$config" /usr/share/man/man1/reactor-serve.1.gz /usr/share/doc/reactor/copyright \
    /usr/share/bash-completion/completions/reactor; do
    [ -f "$file" ] || fail "$file is missing"
done
systemd-analyze verify "$unit" 2>/dev/null || ! command -v systemd-analyze >/dev/null || fail "$unit is wrong"
# Where others may have their sockets in the usual folder.
sed -i "s,/run/reactor/,$run/," "$config"
start
says 2323 hello '> HELLO'
reactor status "$run/control.sock" | head -3
stop

# The administrator changes the configuration; an upgrade must not.
sed -i 's/^\[echo\]$/[echo]\naddress = "2424"/' "$config"
edited=$(sha256sum "$config")
start
says 2424 'moved away' '> MOVED AWAY'
quiet_dpkg -i "$second"
[ "$(installed)" != "$old" ] || fail "it is still version $old"
[ "$(sha256sum "$config")" = "$edited" ] || fail "the upgrade has changed $config"
# The one that runs goes on until systemd starts the new one.
says 2424 'still there' '> STILL THERE'
stop
start
says 2424 'new one' '> NEW ONE'
stop

quiet_dpkg -r reactor
for file in /usr/bin/reactor "$unit"; do
    [ ! -e "$file" ] || fail "$file is left after the removal"
done
[ "$(sha256sum "$config")" = "$edited" ] || fail "the removal has changed $config"
quiet_dpkg -P reactor
after=$(ours)
[ "$after" = "$before" ] || fail "this is left behind: $(comm -13 <(echo "$before") <(echo "$after"))"
printf 'try-package: %s and %s: installed, started, upgraded, removed, purged\n' "$first" "$second"
