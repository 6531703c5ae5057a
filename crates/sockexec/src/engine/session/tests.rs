//! Inputs that come twice, too early or too late. A driver may give them: two events of one poll can
//! report the same end, and the session may have moved on since a socket or a process reported
//! something.

use super::*;
use crate::engine::{StartErrorKind, TermSig};

const NOW: Time = Time::ZERO;

const LIMITS: Limits = Limits {
    request_timeout: None,
    timeout: None,
    kill_timeout: Duration::from_secs(10),
    linger: None,
    termsig: TermSig::Number,
    window: 1 << 20,
};

/// Carries out all that the session asks for. Returns the session, and what it asked for.
fn done(mut session: Session) -> (Session, Vec<Action>) {
    let actions = std::iter::from_fn(|| session.next_action()).collect();
    (session, actions)
}

/// Gives `input` to a copy of the session. Returns the copy, and what it asks for.
fn told(session: &Session, input: impl FnOnce(&mut Session)) -> (Session, Vec<Action>) {
    let mut session = session.clone();
    input(&mut session);
    done(session)
}

/// An input, by its name.
type Named<'a> = (&'a str, &'a dyn Fn(&mut Session));

/// A session whose connection was just accepted.
fn accepted() -> Session {
    Session::new(Rc::new(LIMITS), NOW)
}

/// A session whose program runs, with its three pipes open.
fn running() -> Session {
    let (session, actions) = told(&accepted(), |session| {
        let request = b"1:1,1:a,";
        assert_eq!(session.step(NOW, request), (request.len(), Step::NeedMore));
    });
    assert!(matches!(actions[..], [Action::WantSlot]), "{actions:?}");
    let (session, actions) = told(&session, |session| session.slot(NOW));
    assert!(matches!(actions[..], [Action::Spawn(_)]), "{actions:?}");
    told(&session, |session| session.started(NOW)).0
}

fn lost() -> StartError {
    StartError { kind: StartErrorKind::Lost, about: None, reason: "no child processes".into() }
}

/// Descriptors that were lost are not the client's fault, unless it sent too many or did not say so.
#[test]
fn lost_descriptors_are_not_a_bad_request() {
    for (came, option, is_right) in [(0, "3:fds,", true), (2, "3:fds,", true), (3, "3:fds,", false), (0, "", false)] {
        let (session, actions) = told(&accepted(), |session| {
            session.descriptors(came);
            session.descriptors_lost();
            session.step(NOW, format!("10:protocol=2,{option}1:1,1:a,").as_bytes());
        });
        assert_eq!(actions.contains(&Action::WantSlot), is_right, "{came} {option}: {actions:?}");
        if is_right {
            let (_, actions) = told(&session, |session| session.slot(NOW));
            assert!(matches!(actions[..], [Action::Spawn(_)]), "{actions:?}");
        }
    }
}

/// Sixty clients, each with 4 MiB of a request and then a wrong byte, took 240 MB for as long as they stayed:
/// what had come was kept, and counted nowhere.
#[test]
fn nothing_is_kept_of_a_request_that_is_refused() {
    let refusals: [Named<'_>; 4] = [
        ("a wrong byte", &|session| assert!(session.step(NOW, "!".repeat(500_001).as_bytes()).0 == 0)),
        ("turned away", &|session| session.turn_away(NOW)),
        ("shutdown", &|session| session.shut_down(NOW)),
        ("an early end", &|session| session.client_ended(NOW)),
    ];
    for version in ["", "10:protocol=2,"] {
        let (begun, _) = told(&accepted(), |session| {
            session.step(NOW, format!("{version}1:2,1000000:{}", "x".repeat(500_000)).as_bytes());
        });
        assert!(begun.request.held() > 500_000);
        for (name, refusal) in refusals {
            let (refused, _) = told(&begun, refusal);
            assert!(refused.refused, "{version}{name}");
            assert_eq!(refused.request.held(), 0, "{version}{name}");
            assert_eq!(refused.version(), begun.version());
        }
    }
}

/// A client left, and its program ignored TERM. When KILL was due, the deadline had passed too: it was logged
/// and counted, and `timeout` as an error that a client was told.
#[test]
fn a_client_that_has_left_has_no_deadline() {
    let limits =
        Limits { timeout: Some(Duration::from_secs(2)), request_timeout: Some(Duration::from_secs(1)), ..LIMITS };
    let (mut session, _) = told(&Session::new(Rc::new(limits), NOW), |session| {
        session.step(NOW, b"1:1,1:a,");
        session.slot(NOW);
        session.started(NOW);
        session.client_gone(NOW);
    });
    assert_eq!(session.deadline(), None);
    session.tick(NOW + Duration::from_secs(20));
    assert!(!session.timed_out());
    // The end of the connection and the deadline may come in one turn.
    let mut session = Session::new(Rc::new(limits), NOW);
    session.client_gone(NOW + Duration::from_secs(1));
    session.tick(NOW + Duration::from_secs(1));
    assert!(!session.timed_out());
}

/// A second report of an end changes nothing: neither the state nor what is asked for.
#[test]
fn an_end_that_is_reported_twice_counts_once() {
    let ends: [Named<'_>; 4] = [
        ("end of the input", &|session| session.client_ended(NOW)),
        ("client gone", &|session| session.client_gone(NOW)),
        ("exit", &|session| session.exited(NOW, ExitStatus::Code(3), None)),
        ("status lost", &|session| session.start_failed(&lost())),
    ];
    for (what, end) in ends {
        let (ended, _) = told(&running(), end);
        assert_ne!(ended, running(), "{what}");
        assert_eq!(told(&ended, end), (ended.clone(), vec![]), "{what}");
    }
}

/// The first of two reported ends of the program counts.
#[test]
fn the_program_ends_once() {
    let (exited, _) = told(&running(), |session| session.exited(NOW, ExitStatus::Code(3), None));
    assert_eq!(told(&exited, |session| session.exited(NOW, ExitStatus::Signal(9), None)), (exited.clone(), vec![]));
    assert_eq!(told(&exited, |session| session.start_failed(&lost())), (exited.clone(), vec![]));
    let (gone, _) = told(&running(), |session| session.start_failed(&lost()));
    assert_eq!(told(&gone, |session| session.exited(NOW, ExitStatus::Code(3), None)), (gone.clone(), vec![]));
}

/// A half-close does not bring back a client that is gone.
#[test]
fn the_end_of_input_from_a_client_that_is_gone_changes_nothing() {
    let (gone, _) = told(&running(), |session| session.client_gone(NOW));
    assert_eq!(told(&gone, |session| session.client_ended(NOW)), (gone.clone(), vec![]));
}

/// The end of a program that does not exist, and of a reply that is not complete.
#[test]
fn an_input_that_comes_too_early_changes_nothing() {
    let early: [Named<'_>; 5] = [
        ("executed", &|session| session.executed(7)),
        ("exit", &|session| session.exited(NOW, ExitStatus::Code(3), None)),
        ("not started", &|session| session.start_failed(&lost())),
        ("group empty", &|session| session.group_is_empty()),
        ("reply sent", &|session| session.sent(NOW)),
    ];
    for (what, input) in early {
        assert_eq!(told(&accepted(), input), (accepted(), vec![]), "{what}");
    }
    assert_eq!(told(&running(), |session| session.sent(NOW)), (running(), vec![]));
}

/// When a request that was left in its socket is read again, it has as much time as it had before.
#[test]
fn the_time_for_a_request_stands_still_while_it_is_not_read() {
    let limits = Limits { request_timeout: Some(Duration::from_secs(10)), ..LIMITS };
    let after = |seconds| Time::after(Duration::from_secs(seconds));
    let mut session = Session::new(Rc::new(limits), NOW);
    session.pause(after(4));
    session.pause(after(5));
    assert_eq!(session.next_timer(), None);
    session.tick(after(50));
    session.resume(after(104));
    session.resume(after(105));
    assert_eq!(session.next_timer(), Some(after(110)));
    let (session, actions) = told(&session, |session| session.tick(after(109)));
    assert_eq!(actions, []);
    assert_eq!(told(&session, |session| session.tick(after(110))).1, [Action::CloseClient]);
}

/// A request that has a slot keeps it, and its time goes on.
#[test]
fn a_program_is_not_turned_away() {
    assert_eq!(told(&running(), |session| session.turn_away(NOW)), (running(), vec![]));
    assert_eq!(told(&running(), |session| session.pause(NOW)), (running(), vec![]));
}

/// The version is unknown until the first netstring is complete. After that the client is told once, and
/// the second time its connection is closed.
#[test]
fn a_client_that_is_turned_away_is_told_once_its_version_is_known() {
    let told_busy = |actions: &[Action]| match actions {
        [Action::Send(words), Action::Finish] => words.windows(4).any(|word| word == b"too "),
        _ => false,
    };
    for (request, is_told) in [("", false), ("1:", false), ("1:2,", true), ("1:1,1:a,", true), ("10:protocol=2,", true)]
    {
        let (session, _) = told(&accepted(), |session| {
            session.step(NOW, request.as_bytes());
        });
        let (session, actions) = told(&session, |session| session.turn_away(NOW));
        assert_eq!((told_busy(&actions), session.is_over()), (is_told, !is_told), "{request}: {actions:?}");
        if is_told {
            let (session, actions) = told(&session, |session| session.turn_away(NOW));
            assert_eq!((&actions[..], session.is_over()), (&[Action::CloseClient][..], true), "{request}");
        }
    }
}
