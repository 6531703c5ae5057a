//! Filters of system calls around the daemon, as containers, service managers and old kernels have
//! them. Whatever is refused, the daemon does all of its work through another call.
//!
//! Each test does each thing once with a daemon under one filter. `SOCKEXEC_FILTER=NAME` puts a
//! filter around the daemons of the other tests. `.ci/run full` runs some of them that way.

use std::process::Command;
use std::sync::OnceLock;

use crate::common::{Client, Daemon, Launch, eventually, fixture, pattern, request, steps};
use crate::faults::scenario::footprint;
use crate::version_2::netstring;

/// What Docker's default profile refuses for a container without capabilities, as far as all
/// processors have the call (moby/profiles at cd3bed8, seccomp/default.json). The profile lists
/// what is allowed; here is the rest.
const DOCKER: &str = "clone3=ENOSYS,clone:namespaces=EPERM,acct=EPERM,add_key=EPERM,bpf=EPERM,chroot=EPERM,\
    clock_settime=EPERM,delete_module=EPERM,fanotify_init=EPERM,finit_module=EPERM,get_mempolicy=EPERM,init_module=EPERM,\
    io_uring_enter=EPERM,io_uring_register=EPERM,io_uring_setup=EPERM,kcmp=EPERM,kexec_load=EPERM,keyctl=EPERM,mbind=EPERM,\
    migrate_pages=EPERM,mount=EPERM,mount_setattr=EPERM,move_mount=EPERM,move_pages=EPERM,open_by_handle_at=EPERM,\
    open_tree=EPERM,perf_event_open=EPERM,pidfd_getfd=EPERM,pivot_root=EPERM,process_madvise=EPERM,quotactl=EPERM,reboot=EPERM,\
    request_key=EPERM,set_mempolicy=EPERM,setdomainname=EPERM,sethostname=EPERM,setns=EPERM,settimeofday=EPERM,swapoff=EPERM,\
    swapon=EPERM,syslog=EPERM,umount2=EPERM,unshare=EPERM,userfaultfd=EPERM,vhangup=EPERM";

/// This call reports how a program ended. Nothing can replace it.
const WAITID: &str = "waitid=EPERM";

/// A test for each filter, and its rules by name.
macro_rules! filters {
    ($($name:ident: $rules:expr;)*) => {
        /// The rules of the filter with that name.
        pub(crate) fn rules(name: &str) -> &'static str {
            match name {
                $(stringify!($name) => $rules,)*
                "waitid" => WAITID,
                _ => panic!("no filter {name}"),
            }
        }

        $(
            #[test]
            fn $name() {
                if are_permitted() {
                    live($rules);
                }
            }
        )*
    };
}

filters! {
    docker: DOCKER;
    // systemd's RestrictNamespaces=.
    namespaces: "clone3=ENOSYS,clone:namespaces=EPERM,unshare=EPERM,setns=EPERM";
    clone3_enosys: "clone3=ENOSYS";
    clone3_eperm: "clone3=EPERM";
    clone3_eacces: "clone3=EACCES";
    close_range_enosys: "close_range=ENOSYS";
    close_range_eperm: "close_range=EPERM";
    // Without it a child cannot leave a shared table of descriptors.
    table_enosys: "close_range=ENOSYS,unshare=EPERM";
    table_eperm: "close_range=EPERM,unshare=EPERM";
    pidfd_open_enosys: "pidfd_open=ENOSYS";
    pidfd_open_eperm: "pidfd_open=EPERM";
    pidfd_send_signal_enosys: "pidfd_send_signal=ENOSYS";
    pidfd_send_signal_eperm: "pidfd_send_signal=EPERM";
    pidfd_enosys: "pidfd_open=ENOSYS,pidfd_send_signal=ENOSYS,pidfd_getfd=ENOSYS";
    pidfd_eperm: "pidfd_open=EPERM,pidfd_send_signal=EPERM,pidfd_getfd=EPERM";
    splice_enosys: "splice=ENOSYS,tee=ENOSYS";
    splice_eperm: "splice=EPERM,tee=EPERM";
    eventfd2_enosys: "eventfd2=ENOSYS";
    eventfd2_eperm: "eventfd2=EPERM";
    timerfd_enosys: "timerfd_create=ENOSYS,timerfd_settime=ENOSYS,timerfd_gettime=ENOSYS";
    timerfd_eperm: "timerfd_create=EPERM,timerfd_settime=EPERM,timerfd_gettime=EPERM";
    recvmsg_enosys: "recvmsg=ENOSYS";
    recvmsg_eperm: "recvmsg=EPERM";
    flock_enosys: "flock=ENOSYS";
    flock_eperm: "flock=EPERM";
    // What an old kernel or an emulator lacks.
    old: "clone3=ENOSYS,close_range=ENOSYS,pidfd_open=ENOSYS,pidfd_send_signal=ENOSYS,pidfd_getfd=ENOSYS";
    // All at once.
    strict: "clone3=EPERM,clone:namespaces=EPERM,unshare=EPERM,setns=EPERM,close_range=EPERM,pidfd_open=EPERM,\
        pidfd_send_signal=EPERM,pidfd_getfd=EPERM,splice=EPERM,tee=EPERM,eventfd2=EPERM,timerfd_create=EPERM,flock=EPERM";
}

/// Whether a filter can be made here. If not, the reason is printed once.
pub(crate) fn are_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| {
        let probe = Command::new(fixture()).args(["filter", "clone3=ENOSYS"]).output().expect("the fixture starts");
        if !probe.status.success() {
            eprintln!("SKIPPED: no filter here: {}", String::from_utf8_lossy(&probe.stderr));
        }
        probe.status.success()
    })
}

/// All of the daemon's work, each thing once.
#[track_caller]
fn live(rules: &str) {
    // More connections than the threshold of a crowd.
    let mut daemon = Launch::default().options("-t 0 -m 70 -k 0.2").filter(rules).start();
    daemon.assert_serves();
    // The daemon forgets that connection in the next turn.
    daemon.wait_for_log("over after");
    daemon.turns();
    let before = footprint(daemon.process());

    let bytes = pattern(200_000);
    let reply = daemon.run(&steps("err note cat exit 7"), &bytes);
    assert!(reply.stdout == bytes, "{} bytes came back: {reply:?}", reply.stdout.len());
    assert_eq!((reply.stderr_text(), reply.code()), ("note", 7));
    assert_eq!(daemon.run(&["no-such-program"], b"").code(), 127);
    assert_eq!(daemon.run(&["/etc/passwd"], b"").code(), 126);
    assert_eq!(daemon.run(&steps("die 9"), b"").signal(), 9);

    for leaves in ["hold {} wait", "ignore TERM ; hold {} wait"] {
        its_programs_end_with_a_client(&daemon, |fifo| steps(&leaves.replace("{}", fifo)));
    }
    // Not the fixture's own step: std starts programs through calls that some of these filters
    // refuse.
    let script = |fifo: &str| format!("{} hold {fifo} wait & wait", fixture());
    its_programs_end_with_a_client(&daemon, |fifo| ["/bin/sh", "-c", &script(fifo)].map(str::to_owned).to_vec());
    a_deadline_is_kept(&daemon);
    a_terminal(&daemon);
    many_at_once(&daemon);

    // Fewer if pipes of its own turned out to be useless.
    eventually("no more descriptors and children than before", || {
        let now = footprint(daemon.process());
        now.0 <= before.0 && now.1 <= before.1
    });
    daemon.assert_idle("under a filter");

    let mut life = daemon.fifo("life");
    let client = daemon.exec(&steps(&format!("ignore TERM ; hold {} wait", life.path())));
    life.holder();
    let stopped = daemon.terminate();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    life.wait_for_death();
    assert!(!daemon.socket().exists(), "the socket is left");
    client.until_gone();
}

/// An unknown end is never reported as success.
#[test]
fn an_unknown_end_is_no_success() {
    if !are_permitted() {
        return;
    }
    let daemon = Launch::default().filter(WAITID).start();
    for _ in 0..2 {
        let reply = daemon.run(&steps("out word"), b"");
        assert_eq!((reply.stdout_text(), reply.code()), ("word", 125));
        assert!(reply.stderr_text().contains("exit status lost: Operation not permitted"), "{reply:?}");
    }
}

/// accept(2) that never says anything else, as on FreeBSD where the socket was shut down. The loop spun, and the end never came.
#[test]
fn nobody_can_be_accepted() {
    if !are_permitted() {
        return;
    }
    for error in ["ECONNABORTED", "EINTR"] {
        let mut daemon = Launch::default().filter(&format!("accept4={error}")).start();
        let client = daemon.connect();
        daemon.wait_for_log("warning: cannot accept connections for now: ");
        daemon.assert_idle(error);
        let stopped = daemon.terminate();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        assert_eq!(stopped.stderr.matches("cannot accept connections for now").count(), 1, "{stopped:?}");
        client.until_gone();
    }
}

/// The same where the daemon closes a socket whose backlog it could not serve.
#[cfg(not(any(target_arch = "x86", target_arch = "s390x")))]
#[test]
fn a_backlog_that_cannot_be_emptied() {
    if !are_permitted() {
        return;
    }
    for error in ["ECONNABORTED", "EINTR"] {
        let mut daemon = Launch::default().filter(&format!("accept4=EPERM,accept={error}")).start();
        let client = daemon.connect();
        let stopped = daemon.terminate();
        assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
        assert!(stopped.stderr.contains("cannot accept some of the clients that wait"), "{stopped:?}");
        client.until_gone();
    }
}

#[track_caller]
fn its_programs_end_with_a_client(daemon: &Daemon, program: impl Fn(&str) -> Vec<String>) {
    let mut life = daemon.fifo("life");
    let client = daemon.exec(&program(life.path()));
    life.holder();
    drop(client);
    life.wait_for_death();
    std::fs::remove_file(life.path()).expect("a FIFO");
}

/// On a busy machine the deadline comes before the exec, and there is no exit pair. If it comes at
/// about the same time, KILL ends the program. Afterwards the program is gone.
#[track_caller]
fn a_deadline_is_kept(daemon: &Daemon) {
    let raw = version_2(daemon, "timeout=0.2", &steps("wait"));
    assert!(raw.contains("timeout the deadline has come; the program is ended"), "{raw}");
    let ended = raw.ends_with("7:termsig,2:15,") || raw.ends_with("7:termsig,1:9,");
    assert!(ended || !raw.contains("7:started,"), "{raw}");
}

#[track_caller]
fn a_terminal(daemon: &Daemon) {
    let raw = version_2(daemon, "pty=80x24", &["sh", "-c", "stty size"]);
    assert!(raw.contains("24 80"), "{raw}");
    assert!(raw.ends_with("8:exitcode,1:0,"), "{raw}");
}

/// The reply to a request of version 2, as text.
#[track_caller]
fn version_2<A: AsRef<[u8]>>(daemon: &Daemon, option: &str, argv: &[A]) -> String {
    let mut client = daemon.connect();
    client.send(&[netstring("protocol=2"), netstring(option), request(argv)].concat());
    String::from_utf8_lossy(&client.rest()).into_owned()
}

/// Each program has a dialogue, and all of them run at once.
#[track_caller]
fn many_at_once(daemon: &Daemon) {
    let mut clients: Vec<Client> = (0..70).map(|_| daemon.exec(&steps("cat"))).collect();
    for client in &mut clients {
        client.stdin(b"there");
        client.wait_for("there");
    }
    for client in clients {
        client.dialogue(2);
    }
}
