#!/bin/busybox sh
# /init of the guest: known numbers of connections, what `probe` says of them, and what the kernel
# says by itself, as one tar on the second serial port. Everything is loopback.
/bin/busybox --install -s /bin
export PATH=/bin NO_COLOR=1
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
mount -t sysfs sysfs /sys
# The kernel hands what it does not know to init, as environment: cgroups=v2, hybrid or v1.
case $cgroups in
v2) services=/sys/fs/cgroup ;;
*)
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/pids
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
    mount -t cgroup -o pids cgroup /sys/fs/cgroup/pids
    services=/sys/fs/cgroup/systemd
    ;;
esac
case $cgroups in
v2) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
hybrid)
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    services="$services /sys/fs/cgroup/unified"
    ;;
esac
mount -t tmpfs tmpfs /tmp
mkdir -p /out /run
ip link set lo up
for module in /modules/*.ko; do insmod "$module"; done
uname -r >/out/release

say() { echo "guest: $(cut -d" " -f1 /proc/uptime) $*"; }
# Waits up to 120 s for a line in a file.
wait_for() {
    for _ in $(seq 600); do
        grep -q "$1" "$2" 2>/dev/null && return
        usleep 200000
    done
    say "no \"$1\" in $2:"
    cat "$2"
}
# The kernel's own count of established sockets by service port: passive, active.
truth() {
    port=$(printf %04X "$1")
    awk -v port=":$port" '$4 == "01" { if (substr($2, length($2) - 4) == port) passive++
        if (substr($3, length($3) - 4) == port) active++ }
        END { printf "{\"passive\": %d, \"active\": %d}\n", passive, active }' /proc/net/tcp
}
# Waits up to 120 s until the kernel holds so many on either side.
wait_for_held() {
    for _ in $(seq 600); do
        [ "$(truth 3005)" = "{\"passive\": $1, \"active\": $1}" ] && return
        usleep 200000
    done
    say "not $1 connections but $(truth 3005):"
    cat "$2"
}

say "doctor"
probe doctor --json >/out/doctor.json 2>/out/doctor.err
echo $? >/out/doctor.exit

# A server in a cgroup of its own, which is where its connections belong.
for service in $services; do mkdir "$service/web.service"; done
services=$services sh -c 'for service in $services; do echo $$ >$service/web.service/cgroup.procs; done
       exec lab serve --listen 127.0.0.1:3005 --json' >/tmp/serve.log 2>&1 &
server=$!
wait_for 3005 /tmp/serve.log

say "connections that were there before"
lab load --url ws://127.0.0.1:3005/ --connections 7 --hold 10m --json >/tmp/before.log 2>&1 &
before=$!
wait_for_held 7 /tmp/before.log
probe serve >/out/agent.log 2>&1 &
agent=$!
wait_for 9464 /out/agent.log
probe count --json --port 3005 >/out/seeded.json 2>/out/seeded.err
truth 3005 >/out/seeded.truth

say "connections whose whole life is seen"
probe record -o /out/capture --port 3005,9000,9999 --websocket 3005 >/out/record.log 2>&1 &
record=$!
wait_for 'recording to' /out/record.log
lab load --url ws://127.0.0.1:3005/ --connections 23 --ramp 20/s --hold 30s \
    --end rst:5 --end-at 25s --json -o /out/clients.jsonl >/tmp/load.log 2>&1 &
load=$!
wait_for_held 30 /tmp/load.log
sleep 1
probe count --json --port 3005 >/out/held.json 2>/out/held.err
truth 3005 >/out/held.truth
wait $load

say "churn, and a port where nobody listens"
lab sink --listen 127.0.0.1:9000 --json >/tmp/sink.log 2>&1 &
sink=$!
wait_for 9000 /tmp/sink.log
lab churn --to 127.0.0.1:9000 --count 997 --json >/out/churn.log 2>&1
for _ in 1 2 3; do nc 127.0.0.1 9999 </dev/null >/dev/null 2>&1; done
sleep 2
kill -INT $record
wait $record
echo $? >/out/record.exit
probe count --json --port 3005 >/out/after.json 2>/out/after.err
truth 3005 >/out/after.truth
wget -q -O /out/metrics http://127.0.0.1:9464/metrics

say "the clock is set while connections are open"
probe record -o /out/steps --port 3005 --websocket 3005 >/out/steps.log 2>&1 &
record=$!
wait_for 'recording to' /out/steps.log
# Connections opened before the step and closed after it; begin, step and end by the clock that no one can set.
across() {
    begun=$(cut -d" " -f1 /proc/uptime)
    lab load --url ws://127.0.0.1:3005/ --connections 5 --hold 6s --json >/tmp/across.log 2>&1 &
    load=$!
    wait_for_held 12 /tmp/across.log
    sleep 1
    set=$(cut -d" " -f1 /proc/uptime)
    date -s "@$(($(date +%s) + $1))" >/dev/null
    wait $load
    echo "$begun $set $(cut -d" " -f1 /proc/uptime)" >>/out/steps.uptime
}
across 3600
across -3600
sleep 2
kill -INT $record
wait $record

kill $agent && wait $agent
probe stop --purge >/out/stop.log 2>&1
kill $before $sink $server

say "no BTF, as far as a program can see"
mount -t tmpfs tmpfs /sys/kernel/btf
for command in "doctor" "count --require-exact" "record -o /tmp/never" "serve"; do
    name=${command%% *}
    probe $command >"/out/btf.$name.out" 2>"/out/btf.$name.err"
    echo $? >"/out/btf.$name.exit"
done
dmesg | grep -i -E 'bug|warn|oops|bpf' >/out/dmesg
say "done"
stty -F /dev/ttyS1 raw
tar -C /out -cf /dev/ttyS1 .
sync
poweroff -f
