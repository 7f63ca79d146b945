#!/bin/sh
# The host's side of a deploy: the only program that touches releases/, shared/, current, the
# lock and the audit log.
#
#     NAME=value … sh release.sh VERB
#
# Values come from the environment only. Answers are `key value` lines on stdout, words for people
# go to stderr, and the exit status is a number of fabfile/errors.py. What must last is on disk
# before it is relied upon, so that a kill or a power cut between any two steps leaves something
# that the next `lock` understands. docs/release.md is for the person who looks at it at night.
set -eu
unset CDPATH
export LC_ALL=C
umask 022

nl='
'
verb=${1-} scratch='' recorded=no meant=0 from='' to='' prepared=''
DATE=${DATE-} TOKEN=${TOKEN-} LEASE=${LEASE:-60}
SHARED_FOLDERS=${SHARED_FOLDERS-} SHARED_FILES=${SHARED_FILES-} REQUIREMENTS=${REQUIREMENTS-}
WHEELS=${WHEELS-}

main() {
    trap 'finish $?' EXIT
    trap 'exit 130' INT
    trap 'exit 143' HUP TERM
    script_as_meant
    values_as_meant
    enter
    case $verb in # No && here: it would turn set -e off in what stands left of it
        preflight | list | audit | manifest) ;; # these only look
        expire) ;; # it waits
        renew) mutex; fence ;;
        setup) recorded=yes ;;
        lock | unlock) recorded=yes; mutex ;;
        publish | commit | revert | adopt) recorded=yes; mutex; fence ;;
        wheels) mutex; fence; end_mutex ;;
        stage | command | clean) recorded=yes; mutex; fence; end_mutex ;; # these take long
        attempt) ;; # a command, which has asked
        *) die 2 "release.sh knows no verb '$verb'" ;;
    esac
    "do_$verb"
}

# ---- looking

do_preflight() {
    say "setup $set_up"
    free_space
    [ "$set_up" = yes ] || { say "current -"; return; }
    read_current
    neighbours "$current"
    say "current $current${nl}previous $previous${nl}next $next"
    read_facts "$current"
    say "manifest $manifest"
    [ -z "$foreign" ] || say "foreign $PWD/current"
    highest_token
    say "token $token"
    if lock_is_held; then lock_facts; fi
    [ -z "$lock_token" ] || say "unfinished $lock_purpose"
    if is_pending; then say "pending $from $to"; fi
    shared_missing
    releases | sed 's/^/release /'
}

do_list() {
    read_current
    say "current $current"
    say "line $(line | paste -sd ' ')"
    is_pending || :
    for date in $(releases); do
        read_facts "$date"
        say "release $date $(standing "$date") $revision $staged $owner"
    done
}

do_manifest() { # of a release that is here, for the operator who has to know what differs
    is_staged
    cat "releases/$DATE/.manifest"
}

do_audit() {
    [ ! -e state/audit.log ] || tail -n "${LAST:-20}" state/audit.log
}

# ---- the lock

do_lock() {
    if lock_is_held && [ "${TAKE-}" != "$lock_token" ]; then
        lock_facts
        die 4 "locked by $lock_owner for $((lock_until - now)) s more: $lock_purpose"
    fi
    give_token
    lock_token=$TOKEN lock_owner=$OWNER lock_purpose=$PURPOSE lock_run=$RUN lock_since=$now
    write_lock
    say "token $TOKEN"
    if is_pending && [ "$to" != "${RESUME-}" ]; then # only now that who left it is fenced off
        go_back
        record revert 0
        from='' to=''
    fi
}

do_renew() { say "lease $LEASE"; } # the fence has renewed it

do_unlock() {
    read_lock
    if [ "${FORCE-}" = yes ]; then
        give_token # higher than its holder's, who can change nothing from now on
        [ -z "$lock_token" ] || lock_facts
    elif [ -n "$lock_token" ] && [ "$lock_token" != "$TOKEN" ]; then
        fenced_off
    fi
    let_go
}

# ---- setting up and staging: nothing that a visitor sees

do_setup() {
    mkdir -p releases shared venvs state/releases
    chmod 700 state
    each make_shared_folder "$SHARED_FOLDERS"
    sync -f .
    say "setup yes"
}

do_stage() {
    to=$DATE part=releases/$DATE.part
    missing=$(shared_missing)
    [ -z "$missing" ] || refuse "$missing" "not in $PWD/shared yet"
    alone
    if [ -d "releases/$DATE" ]; then
        same_manifest "releases/$DATE" || refuse "" "release $DATE is here, of another artifact"
        say "staged already"
        return
    fi
    scratch=$part
    if [ -n "${BASE-}" ]; then extend; else extract; fi
    verify
    each link_shared "$SHARED_FOLDERS$nl$SHARED_FILES"
    if [ -n "$REQUIREMENTS" ]; then link_venv; fi
    sync -f "$part"
    mutex
    fence
    write_facts
    mv -T "$part" "releases/$DATE"
    scratch=''
    sync releases
    say "staged $DATE"
}

do_wheels() { # keeps those that came, with the lock file that names them; says which are here
    alone
    take_wheels
    name_venv "$scratch/lock"
    if [ -e "venvs/$venv/.complete" ]; then
        say "venv $venv complete"
        return
    fi
    check_wheels
    mutex
    fence
    keep_wheels
    say "python $(tell_python)"
    wheels_in wheels | grep -Ff "$scratch/hashes" | sed 's/ .*//; s/^/wheel /'
}

do_command() { # once for each release: what became of it is here, whatever becomes of the link
    to=$DATE at=state/commands/$DATE-$(say "$COMMAND" | sha256sum | cut -c 1-8)
    is_staged
    mutex
    [ -e "$at.log" ] || begin
    end_mutex
    watch
    [ -e "$at.status" ] ||
        refuse "" "nobody knows how it ended: $COMMAND; what it printed is in $PWD/$at.log"
    status=$(cat "$at.status")
    say "exit $status"
    [ "$status" = 0 ] || die 1 "exit status $status: $COMMAND"
}

begin() { # in a session of its own; it holds its log's lock for as long as any of it runs
    mkdir -p state/commands
    exec 7>>"$at.log"
    flock 7
    at=$at setsid sh "$script" attempt </dev/null >&7 2>&1 8>&- 9>&- &
    say $! >"$at.pid"
    exec 7>&-
}

watch() { # says what it prints until it has ended, which another call may have seen before
    if flock -n "$at.log" true; then
        cat "$at.log" >&2
    else
        tail -n +1 -s 0.1 -f --pid="$(cat "$at.pid")" "$at.log" >&2
        flock "$at.log" true
    fi
}

do_attempt() { # after what an older run has left at work, if its own run has the host by then
    exec 6>>state/attempt
    flock -n 6 || warn "waiting for the command of an earlier run"
    status=1
    if flock -w 240 6 && (mutex && fence); then status=0; fi
    [ $status = 1 ] || run_in_release || status=$?
    say "$status" >"$at.status.new"
    keep "$at.status"
}

# ---- the switch, and what makes it stay

do_publish() {
    is_staged
    read_current
    [ -z "$foreign" ] || refuse "foreign $PWD/current" "$PWD/current is not a link of ours"
    if ! is_pending; then
        from=$current
    elif [ "$to" != "$DATE" ]; then
        refuse "pending $from $to" "the publish of $to waits for its commit or revert"
    fi
    prepare "$DATE"
    write_pending "$from" "$DATE"
    if [ -n "${RESTART-}" ]; then arm; fi
    [ -z "${WAIT-}" ] || wait_for_word
    switch_to "$to"
    say "published $to${nl}previous $from${nl}switched $switched"
}

wait_for_word() { # that every host is as far as this one
    say ready
    word=$(exec timeout "$WAIT" head -n 1) || :
    [ "$word" = go ] || {
        if [ "$current" = "$from" ]; then take_back; else go_back; fi
        die 1 "not switched: no word within $WAIT s that all hosts are ready"
    }
}

do_adopt() { # what another tool left as current becomes a release, where it is, as it is
    read_current
    if [ -z "$foreign" ]; then
        say "adopted -"
        return
    fi
    path=$(readlink -f current) || path=''
    [ -d "$path" ] || refuse "" "$PWD/current leads nowhere"
    from=- to=$(date_of "$path")
    [ "$path" = "$PWD/releases/$to" ] || make_room "$path"
    REVISION=$(one_line "$(head -n 1 "$path/REVISION" 2>/dev/null)")
    DATE=$to MANIFEST_SHA256=- ARTIFACT=-
    write_facts
    { say "- $to $TOKEN 0"; say "$to"; } >state/line.new
    keep state/line
    switch_to "$to"
    say "adopted $to $path"
}

date_of() { # PATH: its name where that is a date, as with Capistrano, else when it was made
    name=${1##*/}
    if is_date "$name"; then say "$name"; else date -u -r "$1" +%Y%m%d%H%M%S; fi
}

make_room() { # PATH: under releases/ by its date; a link to it, or the folder that was current
    [ ! -e "releases/$to" ] || refuse "" "$PWD/releases/$to is in the way of $1"
    if [ -L current ]; then ln -sT "$1" "releases/$to"; else mv -T current "releases/$to"; fi
}

do_expire() { # what publish leaves running: the way back, should its run fall silent
    while is_pending && [ "$pending_token" = "$TOKEN" ]; do
        read_lock
        now=$(date +%s)
        if [ -n "$lock_token" ] && [ "$lock_token" != "$TOKEN" ]; then
            return 0 # another run has the host, and has put it right
        elif [ "$lock_until" -le "$now" ]; then
            give_up
        else
            sleep "$((lock_until - now < 5 ? lock_until - now : 5))"
        fi
    done
}

give_up() { # unless its run spoke up at the last moment
    mutex
    read_lock
    if is_pending && [ "$pending_token" = "$TOKEN" ] && [ "$lock_until" -le "$now" ]; then
        recorded=yes
        go_back
        end_mutex
        (cd -- "$HOME" && sh -c "$RESTART") || die 1 "went back, but the services could not be restarted"
        exit 0
    fi
    end_mutex
}

arm() { # in a session of its own, that outlives this login; a whole login may end with its scope
    scope=''
    if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ]; then
        scope='systemd-run --quiet --scope --collect'
    fi
    # shellcheck disable=SC2086 # words
    (unset FAB_RUN; exec $scope setsid sh "$script" expire) \
        </dev/null >>state/expire.log 2>&1 8>&- 9>&- & # Ctrl-C ends all that has FAB_RUN
}

do_commit() {
    if ! is_pending; then
        committed_already || refuse "nothing pending" "this host has gone back, or never switched"
        to=$DATE
    elif [ "$to" != "$DATE" ]; then
        refuse "pending $from $to" "it is $to that waits for a commit, not $DATE"
    else
        mv -T state/pending state/line
        sync state
    fi
    say "committed $DATE"
}

do_revert() {
    if is_pending; then go_back; else say "nothing pending"; fi
}

# ---- what may go

do_clean() {
    alone
    sweep
    read_current
    neighbours "$current"
    is_pending || :
    mutex # choosing and taking away are one step
    fence
    [ "$KEEP" -gt 0 ] || KEEP=1
    count=0 users='' looked=''
    for date in $(releases | sort -r); do
        judge "$date"
        [ -n "$reason" ] || { look; reason=$(user_of "$PWD/releases/$date"); }
        if [ -n "$reason" ]; then say "kept $date $reason"; else take_away "$date"; fi
    done
    take_away_venvs
    [ ! -d wheels ] || take_away_wheels
    end_mutex
    sweep
    if [ "${UNLOCK-}" = yes ]; then
        mutex
        fence
        let_go
        record unlock 0
    fi
}

judge() { # DATE: the reason why it stays, or none. Called newest first, which count relies on
    reason='' live=no than=${current#-}
    if was_live "$1"; then live=yes count=$((count + 1)); fi
    if [ "$1" = "$current" ]; then reason=current
    elif [ "$1" = "$from" ] || [ "$1" = "$to" ]; then reason=pending
    elif [ "$1" = "$previous" ] || [ "$1" = "$next" ]; then reason="beside the current one"
    elif [ $live = yes ] && [ "$count" -le "$KEEP" ]; then reason="of the last $KEEP that were live"
    elif [ $live = no ] && [ "$1" -gt "${than:-0}" ]; then reason="newer than the current one"
    fi
}

look() { # users: what may be seen to use a release or a virtualenv; once, and only if one may go
    [ -z "$looked" ] || return 0
    looked=yes users=$(
        set +e
        set -- -F -e "$PWD/releases/" -e "$PWD/venvs/"
        find /proc/[0-9]*/cwd /proc/[0-9]*/exe /proc/[0-9]*/fd/* -maxdepth 0 -printf '%p %l\n' \
            2>/dev/null | grep "$@"
        grep -asHz "$@" /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\0' '\n'
        grep -sH "$@" /proc/[0-9]*/maps
        crontab -l 2>/dev/null | sed 's/^/crontab:/' | grep "$@"
        grep -sHr "$@" /etc/crontab /etc/cron.d /etc/systemd/system /run/systemd/transient \
            /etc/supervisor "$HOME/.config/systemd" "$HOME/supervisor"
        :
    )
}

user_of() { # PATH: the first who uses it, `pid 4121 celery` or `named in FILE`; or none
    user=$(say "$users" | grep -F -m 1 -e "$1") || return 0
    case $user in
        /proc/*) pid=${user#/proc/} pid=${pid%%/*}; say "pid $pid $(cat "/proc/$pid/comm" 2>&1)" ;;
        *) say "named in ${user%%:*}" ;;
    esac
}

take_away() { # DATE: out of sight by one rename; sweep removes it
    mv -T "releases/$1" "releases/.trash-$1"
    rm -f "state/releases/$1" "state/releases/$1.live" "state/commands/$1-"*
    say "removed $1"
}

take_away_venvs() { # those that no release links to
    linked=$(readlink releases/*/.venv) || :
    for path in venvs/*; do
        if has "$linked" "/$path" || [ ! -d "$path" ]; then continue; fi
        look
        [ -z "$(user_of "$PWD/$path")" ] || continue
        mv -T "$path" "venvs/.trash-${path#venvs/}"
        say "venv ${path#venvs/} removed"
    done
}

take_away_wheels() { # those that no release's lock file names
    mkdir -p wheels/.part
    named_in releases/*/"$REQUIREMENTS" >wheels/.part/hashes
    wheels_in wheels | grep -vFf wheels/.part/hashes | while read -r _ path; do
        rm -f "$path"
        say "wheel ${path#wheels/} removed"
    done
}

sweep() { # what was taken away, and what a killed run left half-made
    rm -rf releases/.trash-* venvs/.trash-* releases/*.part wheels/.part .current.* ||
        warn "some of what was taken away could not be removed from $PWD"
}

# ---- the mutex, the fence and the lock's file

mutex() { # one at a time from here on; the kernel lets go of it when this process ends
    exec 9>>state/mutex
    flock -w 60 9 || die 1 "another command holds $PWD/state/mutex: fuser -v $PWD/state/mutex"
    now=$(date +%s)
}

end_mutex() { exec 9>&-; }

alone() { # one stage or clean at a time: what a cut or frozen run has left at it is ended
    exec 8>>state/staging
    flock -n 8 || {
        mutex
        fence # it is older than this one, or of this very run
        end_staging
        end_mutex
        flock -w 60 8 || die 1 "another stage or clean still runs: fuser -v $PWD/state/staging"
    }
}

end_staging() { # a stage may wait for ever for what its operator would have sent
    for fd in /proc/[0-9]*/fd/8; do
        pid=${fd#/proc/} pid=${pid%%/*}
        if [ "$pid" != $$ ] && [ "$(readlink "$fd")" = "$PWD/state/staging" ]; then
            kill "$pid" 2>/dev/null || :
        fi
    done
}

fence() { # only the holder of the lock may go on, and its lease begins anew
    read_lock
    if [ -z "$lock_token" ] || [ "$lock_token" != "$TOKEN" ]; then fenced_off; fi
    left=$((lock_until - now))
    [ "$left" -gt "$LEASE" ] || [ "$left" -le "$((LEASE * 9 / 10))" ] || return 0 # it just has
    write_lock || [ "$verb" = revert ] || die 1 "$PWD/state cannot be written: is the disk full?"
}

let_go() {
    rm -f state/lock
    sync state
    say "unlocked ${lock_token:--}"
}

fenced_off() {
    say "holder ${lock_owner:--}"
    [ -z "$lock_token" ] || lock_facts
    die 9 "token ${TOKEN:--} does not hold the lock here: ${lock_owner:-nobody} does"
}

read_lock() {
    lock_token='' lock_owner='' lock_purpose='' lock_run='' lock_since=0 lock_until=0
    [ ! -e state/lock ] || {
        read -r _ lock_token && read -r _ lock_owner && read -r _ lock_purpose
        read -r _ lock_run && read -r _ lock_since && read -r _ lock_until
    } <state/lock
}

write_lock() {
    printf '%s %s\n' token "$lock_token" owner "$lock_owner" purpose "$lock_purpose" \
        run "$lock_run" since "$lock_since" until "$((now + LEASE))" >state/lock.new &&
        keep state/lock
}

lock_is_held() {
    read_lock
    [ -n "$lock_token" ] && [ "$lock_until" -gt "$now" ]
}

lock_facts() {
    printf 'lock_%s %s\n' token "$lock_token" owner "$lock_owner" purpose "$lock_purpose" \
        run "$lock_run" since "$lock_since" until "$((lock_until - now))"
}

highest_token() { # token
    token=0
    [ ! -e state/token ] || read -r token <state/token
}

give_token() { # TOKEN: higher than any that this host has given out
    highest_token
    TOKEN=$((token + 1))
    [ "$TOKEN" -ge "${MIN_TOKEN:-0}" ] || TOKEN=$MIN_TOKEN
    say "$TOKEN" >state/token.new
    keep state/token
}

# ---- current, the line and what is pending
# state/line is the undo list: the releases that were live, oldest first, below a line
# `FROM TO TOKEN DEADLINE` of the publish that made it. A publish writes the line to be into
# state/pending, so a commit is one rename: it has happened or it has not.

read_current() { # current: the live release or -; foreign: yes where something of others stands
    current=- foreign='' link=$(readlink current) || :
    if is_date "${link#releases/}" && [ "$link" != "${link#releases/}" ]; then
        if [ -d "$link" ]; then current=${link#releases/}; fi
    elif [ -e current ] || [ -L current ]; then
        foreign=yes
    fi
}

prepare() { # DATE: all of a switch but its last step
    scratch=.current.$$
    [ -d "releases/$1" ] && ln -sfT "releases/$1" "$scratch" && prepared=$1
}

switch_to() { # DATE or -: the one place where visitors get another release
    if [ "$1" = - ]; then
        rm -f current
    else
        { [ "$prepared" = "$1" ] || prepare "$1"; } && mv -T ".current.$$" current
    fi && switched=$(date +%s.%N) && sync .
}

line() { # the dates of the undo list that are still here
    [ -e state/line ] || return 0
    { read -r _ && while read -r date; do [ ! -d "releases/$date" ] || say "$date"; done; } <state/line
}

line_with() { # FROM TO: moved along where TO is on it, else cut off after FROM and lengthened
    line=$(line)
    if has "$nl$line$nl" "$nl$2$nl"; then
        say "$line"
    else
        say "$line" | sed -e '/^$/d' -e "/^$1\$/q"
        say "$2"
    fi
}

neighbours() { # DATE: previous and next on the line
    previous=- next=- passed=''
    for date in $(line); do
        if [ "$date" = "$1" ]; then previous=${passed:--}
        elif [ "$passed" = "$1" ]; then next=$date
        fi
        passed=$date
    done
}

is_pending() { # from and to of a publish that was neither committed nor reverted
    from='' to='' pending_token=''
    [ -e state/pending ] && read -r from to pending_token _ <state/pending
}

write_pending() { # FROM TO
    from=$1 to=$2
    [ "$from" = - ] || : >"state/releases/$from.live" # it was live, whatever becomes of the line
    { say "$from $to $TOKEN $((now + LEASE))"; line_with "$from" "$to"; } >state/pending.new
    keep state/pending
}

committed_already() { # by this very run: its first answer was lost
    [ -e state/line ] && read -r _ last token _ <state/line &&
        [ "$last $token" = "$DATE $TOKEN" ]
}

go_back() { # even where current is FROM already: nobody knows what was restarted meanwhile
    switch_to "$from" || die 8 "$PWD/current cannot go back from $to to $from"
    take_back
}

take_back() { # a publish, where current is FROM
    rm -f state/pending
    sync state
    set -- "$to" "$from"
    from=$1 to=$2 # for the record: what it left, where it went
    say "reverted $from $to"
}

# ---- releases

releases() {
    for path in releases/*; do
        if is_date "${path#releases/}" && [ -d "$path" ]; then say "${path#releases/}"; fi
    done
}

is_staged() { # its final name is the last thing that stage gives it
    [ -d "releases/$DATE" ] || refuse "" "release $DATE is not staged in $PWD"
}

was_live() { # DATE
    [ -e "state/releases/$1.live" ] || has "$nl$(line)$nl" "$nl$1$nl"
}

standing() { # DATE: in one word
    if [ "$1" = "$to" ]; then say pending
    elif [ "$1" = "$current" ]; then say current
    elif was_live "$1"; then say live
    else say staged
    fi
}

read_facts() { # DATE: revision, staged, owner and manifest
    revision=- staged=- owner=- manifest=-
    [ ! -e "state/releases/$1" ] ||
        { read -r _ revision && read -r _ staged && read -r _ owner && read -r _ _ &&
            read -r _ manifest; } <"state/releases/$1"
}

write_facts() {
    printf '%s %s\n' revision "$REVISION" staged "$now" owner "$OWNER" artifact "$ARTIFACT" \
        manifest "$MANIFEST_SHA256" >"state/releases/$DATE.new"
    keep "state/releases/$DATE"
}

run_in_release() ( # COMMAND, with the release's virtualenv and without this script's variables
    cd -P "releases/$DATE" || exit
    exec env -u SCRIPT_SHA256 -u DEPLOY_TO -u TOKEN -u DATE -u OWNER -u PURPOSE -u LEASE -u RUN \
        -u SHARED_FOLDERS -u SHARED_FILES -u REQUIREMENTS -u PYTHON -u WHEELS -u COMMAND -u RESUME -u at \
        LC_ALL=C.UTF-8 "PATH=$PWD/.venv/bin:$PATH" sh -c "$COMMAND" 2>&1
)

# ---- staging, piece by piece

extract() {
    rm -rf "$part"
    mkdir "$part"
    tar --extract --gzip --file=- --directory="$part" --no-same-owner --warning=no-timestamp ||
        die 1 "the artifact cannot be unpacked: cut short, damaged, or no room"
}

extend() { # the files of BASE, hard-linked, and over them what came, as files of their own
    say "base $BASE" # so that the operator sends the whole artifact if anything of this fails
    rm -rf "$part"
    cp -al -- "releases/$BASE" "$part" || die 1 "release $BASE cannot be copied"
    find "$part" -type l -delete # they come again; one to shared/ must not be followed
    tar --extract --gzip --file=- --directory="$part" --no-same-owner --warning=no-timestamp \
        --unlink-first --recursive-unlink || die 1 "what changed cannot be unpacked"
}

same_manifest() { # FOLDER
    [ "$(sha256sum <"$1/.manifest")" = "$MANIFEST_SHA256  -" ]
}

verify() { # that each path is as the manifest says; what a base has beside them goes
    same_manifest "$part" || die 1 "the artifact's manifest is not the one that was announced"
    differs=$(cd "$part" && { found; hashes; } | compare)
    if [ -n "${BASE-}" ]; then
        say "$differs" | sed -n 's/^extra //p' | (cd "$part" && xargs -d '\n' -r rm -rf --)
        differs=$(say "$differs" | sed '/^extra /d')
    fi
    [ -z "$differs" ] || die 1 "not as the manifest says: $(say "$differs" | few)"
}

found() { # kind and mode of each path: `f644  PATH`, for a link `l777  PATH<TAB>TEXT`
    find . -mindepth 1 ! -path ./.manifest \
        \( -type l -printf 'l777  %P\t%l\n' -o -printf '%y%m  %P\n' \)
}

hashes() { # of the manifest's files: `SHA256  ./PATH`; openssl uses what the processor has for it
    sha256=sha256sum
    if command -v openssl >/dev/null; then sha256='openssl dgst -sha256 -r'; fi
    # shellcheck disable=SC2086 # words
    sed -n 's|^f[0-9]* [0-9a-f]*  |./|p' .manifest | xargs -d '\n' -r $sha256 2>/dev/null || :
}

# The manifest's lines: `f644 SHA256  PATH`, `d755 -  PATH`, `l777 -  PATH<TAB>TEXT`. A setgid
# parent hands its bit down to the folders in it.
compare() { # what was found and hashed with the manifest: `extra PATH`, `missing PATH` …
    awk '
        { path = substr($0, index($0, "  ") + 2) }
        NR == FNR { mode[path] = $1; hash[path] = $2; next }
        index($0, " ") == 65 { hashed[substr($0, 69)] = $1; next }
        !(path in mode) { sub("\t.*", "", path); print "extra " path; next }
        { seen[path] = $1 == "d2755" ? "d755" : $1 }
        END {
            for (path in mode)
                if (!(path in seen)) print "missing " path
                else if (seen[path] != mode[path]) print "of another mode " path
                else if (mode[path] ~ /^f/ && hashed[path] != hash[path]) print "damaged " path
        }
    ' .manifest -
}

few() { sort | head -n 3 | paste -sd ',' | sed 's/,/, /g'; }

shared_missing() {
    each missing_folder "$SHARED_FOLDERS"
    each missing_file "$SHARED_FILES"
}

make_shared_folder() { mkdir -p "shared/$1"; }
missing_folder() { [ -d "shared/$1" ] || say "missing $1"; }
missing_file() { [ -f "shared/$1" ] || say "missing $1"; }

link_shared() { # PATH: in place of whatever the artifact has there
    up=../.. rest=$1
    while [ "$rest" != "${rest#*/}" ]; do up=$up/.. rest=${rest#*/}; done
    rm -rf "${part:?}/$1"
    mkdir -p "$(dirname "$part/$1")"
    ln -s "$up/shared/$1" "$part/$1"
}

link_venv() { # the virtualenv of this lock file and this Python, built where it is not complete
    name_venv "$part/$REQUIREMENTS"
    how=reused
    if [ ! -e "venvs/$venv/.complete" ]; then
        how=built
        build_venv "$PWD/venvs/$venv" </dev/null >&2 || die 1 "the virtualenv could not be built"
    fi
    ln -sT "../../venvs/$venv" "$part/.venv"
    say "venv $venv $how"
}

name_venv() { # LOCKFILE: python, and venv, the name of its virtualenv
    [ -f "$1" ] || die 1 "the artifact has no $REQUIREMENTS"
    python=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') ||
        die 1 "${PYTHON:-python3} does not run on this host"
    venv=$({ cat "$1" && "$python" -VV; } | sha256sum | cut -c 1-16)
}

build_venv() ( # FOLDER: at its final path, as virtualenvs cannot be moved; .complete comes last
    rm -rf "$1" && cd "$part" || exit
    PATH=$PATH:$HOME/.local/bin # where uv's and pip's own installations put it
    export UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE:-1}"
    folder=$1
    shift
    [ "$WHEELS" != push ] || set -- --no-index --find-links ../../wheels
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$python" "$folder" &&
            uv pip sync --quiet --require-hashes "$@" --python "$folder/bin/python" "$REQUIREMENTS"
    else
        "$python" -m venv "$folder" && "$folder/bin/python" -m pip install --quiet \
            --require-hashes "$@" --requirement "$REQUIREMENTS"
    fi && sync -f "$folder" && : >"$folder/.complete" && sync "$folder"
)

take_wheels() { # and the lock file, out of sight
    scratch=wheels/.part
    rm -rf "$scratch"
    mkdir -p "$scratch"
    tar --extract --file=- --directory="$scratch" --no-same-owner --warning=no-timestamp ||
        die 1 "the wheels cannot be unpacked: cut short, damaged, or no room"
}

check_wheels() { # that the lock file names each
    named_in "$scratch/lock" >"$scratch/hashes"
    bad=$(wheels_in "$scratch" | grep -vFf "$scratch/hashes" | sed 's|.*/||' | few)
    [ -z "$bad" ] || die 1 "damaged on its way: $bad"
}

keep_wheels() { # what has a wheel's name is whole
    set -- "$scratch"/*.whl
    if [ -e "$1" ]; then
        sync "$@"
        mv "$@" wheels
        sync wheels
    fi
}

wheels_in() { # FOLDER: `SHA256  PATH` of each
    sha256sum "$1"/*.whl 2>/dev/null || :
}

named_in() { # LOCKFILE...: the hashes of SHA-256 in them
    cat "$@" 2>/dev/null | grep -o 'sha256:[0-9a-f]*' | cut -d : -f 2
}

tell_python() { # what decides which wheels it takes: names as in the markers of lock files
    "$python" -c '
import json, os, platform, sys, sysconfig
print(json.dumps({
    "implementation_name": sys.implementation.name,
    "implementation_version": platform.python_version(),
    "os_name": os.name,
    "platform_machine": platform.machine(),
    "platform_python_implementation": platform.python_implementation(),
    "platform_system": platform.system(),
    "python_full_version": platform.python_version(),
    "python_version": "%d.%d" % sys.version_info[:2],
    "sys_platform": sys.platform,
    "abi": "cp" + (sysconfig.get_config_var("SOABI") or "-").split("-")[1],
    "platform": sysconfig.get_platform(),
    "libc": "CS_GNU_LIBC_VERSION" in os.confstr_names and os.confstr("CS_GNU_LIBC_VERSION") or "",
}, sort_keys=True))'
}

# ---- beginning and end

script_as_meant() { # by hand there is nothing to compare it with
    [ -z "${SCRIPT_SHA256-}" ] || [ "$(sha256sum <"$0")" = "$SCRIPT_SHA256  -" ] ||
        die 20 "script differs"
}

values_as_meant() {
    OWNER=${OWNER:--} PURPOSE=${PURPOSE:--} RUN=${RUN:--} REVISION=${REVISION:--}
    ARTIFACT=${ARTIFACT:--} KEEP=${KEEP:-5}
    case $OWNER$PURPOSE$RUN$REVISION$ARTIFACT in
        *[!\ -~]*)
            OWNER=$(one_line "$OWNER") PURPOSE=$(one_line "$PURPOSE") RUN=$(one_line "$RUN")
            REVISION=$(one_line "$REVISION") ARTIFACT=$(one_line "$ARTIFACT")
            ;;
    esac
    case $TOKEN$LEASE$KEEP${MIN_TOKEN-}${TAKE-}${LAST-}${WAIT-} in
        *[!0-9]*) die 2 "TOKEN, LEASE, KEEP, MIN_TOKEN, TAKE, LAST and WAIT are whole numbers" ;;
    esac
    case $verb in
        stage | command | attempt | publish | commit | manifest)
            is_date "$DATE" || die 2 "DATE is 14 digits, not '$DATE'" ;;
    esac
    [ -z "${BASE-}" ] || is_date "$BASE" || die 2 "BASE is 14 digits, not '$BASE'"
    each inner_path "$SHARED_FOLDERS$nl$SHARED_FILES$nl$REQUIREMENTS"
}

is_date() { # TEXT
    case $1 in *[!0-9]*) return 1 ;; esac
    [ "${#1}" = 14 ]
}

inner_path() { # PATH
    case /$1/ in *//* | */./* | */../*) die 2 "'$1' is not a plain path below its folder" ;; esac
}

one_line() { # TEXT or -: no control characters, no broken UTF-8: fit for a reply and for JSON
    case $1 in
        '') say - ;;
        *[!\ -~]*) printf %s "$1" | iconv -c -f UTF-8 -t UTF-8 | tr '[:cntrl:]' ' ' ;;
        *) say "$1" ;;
    esac
}

enter() {
    now=$(date +%s) started=$now set_up=yes script=$0
    [ "$script" != "${script#/}" ] || script=$PWD/$script
    cd -- "$HOME"
    if [ "$verb" = setup ]; then mkdir -p -- "$DEPLOY_TO/state"; fi
    if [ -d "$DEPLOY_TO/state" ]; then
        cd -P -- "$DEPLOY_TO"
    elif [ "$verb" = preflight ]; then
        set_up=no
    else
        refuse "setup no" "$DEPLOY_TO is not set up on this host: run fab setup"
    fi
}

free_space() { # inodes: - where the file system does not count them
    read -r blocks size inodes free <<END
$(stat -f -c '%a %S %c %d' .)
END
    [ "$inodes" != 0 ] || free=-
    say "free_kb $((blocks * size / 1024))${nl}free_inodes $free"
}

finish() { # STATUS
    set +e
    [ -z "$scratch" ] || rm -rf "$scratch"
    case $1 in "$meant" | 1 | 130 | 143) status=$1 ;; *) status=1 ;; esac # cp's 2 is no Usage
    case $recorded$status in
        no* | yes4) ;; # to find the lock taken is no event
        *) record "$verb" "$status" ;;
    esac
    exit "$status"
}

record() { # VERB STATUS: one line in the audit log, by one write
    case $2 in 0) outcome=ok ;; 6) outcome=refused ;; 9) outcome=fenced ;; *) outcome=failed ;; esac
    client=${SSH_CONNECTION-} revision=$REVISION time=$(date -u '+%s %FT%TZ')
    if [ -n "$to" ] && [ "$revision" = - ]; then read_facts "$to"; fi
    owner=$OWNER run=$RUN purpose=$PURPOSE
    case $owner$run$purpose$revision in *[\\\"]*) in_json ;; esac
    entry=$(
        printf '"%s":"%s",' when "${time#* }" verb "$1" outcome "$outcome" client "${client%% *}" \
            owner "$owner" run "$run" purpose "$purpose" from "$from" to "$to" revision "$revision"
        printf '"code":%d,"token":%d,"seconds":%d' "$2" "${TOKEN:-0}" $((${time% *} - started))
    )
    say "{$entry}" >>state/audit.log
    sync state/audit.log
}

in_json() { # owner, run, purpose and revision, as the insides of JSON strings
    owner=$(quote "$owner") run=$(quote "$run")
    purpose=$(quote "$purpose") revision=$(quote "$revision")
}

quote() { say "$1" | sed 's/[\\"]/\\&/g'; } # TEXT of one line

keep() { # PATH: from PATH.new, durably and in one step
    sync "$1.new" && mv -T "$1.new" "$1" && sync "${1%/*}"
}

each() { # FUNCTION LINES: calls it with each line that is not empty
    while IFS= read -r each; do
        if [ -n "$each" ]; then "$1" "$each"; fi
    done <<END
$2
END
}

has() { case $1 in *"$2"*) ;; *) return 1 ;; esac; } # TEXT PART

refuse() { # REPLY TEXT
    [ -z "$1" ] || say "$1"
    die 6 "$2"
}

die() { # STATUS TEXT
    warn "$2"
    meant=$1
    exit "$1"
}

warn() { say "$1" >&2; }
say() { printf '%s\n' "$1"; } # echo would read backslashes

main
