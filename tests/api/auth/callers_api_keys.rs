//! Authentication by API key, which is compared by its digest.

use serde_json::json;

use crate::support::{Event, Events, FinishedRun, Gateway, KeyFile, Socket, TempFile, Upstream, id, program};

#[tokio::test]
async fn callers_with_a_key_are_served_and_others_rejected() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice", "bob"]);
    let gateway = Gateway::of_service(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.appointment()["reference"], "service-1");
    let calls = upstream.calls();
    let digest = std::fs::read_to_string(keys.path()).unwrap();
    let digest = digest.lines().next().unwrap().split_once(':').unwrap().1.to_owned();
    let almost = format!("{}x", keys.key(0));
    for unknown in ["alice", "service-1", "agw_", &digest, &almost, &keys.key(0)[1..], "a.b.c"] {
        let reply = gateway.appointment(unknown, &id(1)).await;
        assert_eq!((reply.status, reply.codes()), (401, vec!["UNAUTHENTICATED"]));
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("API key") && !message.contains(unknown), "{message}");
    }
    assert_eq!(
        gateway.query(None, &format!("{{ appointment(id: \"{}\") {{ id }} }}", id(1))).await.codes(),
        ["UNAUTHENTICATED"]
    );
    assert_eq!(upstream.calls(), calls, "nobody who is unknown costs the upstream a call");
    assert_eq!(gateway.metrics().await["gateway_rejected_callers_total{reason=\"unknown_api_key\"}"], 7.0);
}

#[tokio::test]
async fn each_name_has_a_cache_of_its_own_whatever_key_it_comes_with() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice", "bob", "alice"]);
    let gateway = Gateway::of_service(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    for (index, status) in [(0, "call 1"), (1, "call 2"), (2, "call 1"), (0, "call 1"), (1, "call 2")] {
        assert_eq!(gateway.appointment(keys.key(index), &id(1)).await.appointment()["status"], status);
    }
    assert_eq!(upstream.calls_for(&id(1)), 2);
}

#[tokio::test]
async fn all_share_one_cache_where_the_operator_says_so() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice", "bob"]);
    let settings = [("callers.api_keys_file", keys.path()), ("callers.share_cache", "true")];
    let gateway = Gateway::of_service(&upstream, &settings).await;
    for index in [0, 1] {
        assert_eq!(gateway.appointment(keys.key(index), &id(1)).await.appointment()["status"], "call 1");
    }
    assert_eq!(gateway.appointment("nobody", &id(1)).await.codes(), ["UNAUTHENTICATED"]);
    assert_eq!(upstream.calls_for(&id(1)), 1);
}

#[tokio::test]
async fn removed_api_keys_are_invalid_after_a_restart() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice", "bob"]);
    for (lines, codes) in [(2, vec![]), (1, vec!["UNAUTHENTICATED"])] {
        let text = std::fs::read_to_string(keys.path()).unwrap();
        std::fs::write(keys.path(), text.lines().take(lines).collect::<Vec<_>>().join("\n")).unwrap();
        let gateway = Gateway::of_service(&upstream, &[("callers.api_keys_file", keys.path())]).await;
        assert_eq!(gateway.appointment(keys.key(0), &id(1)).await.codes(), Vec::<&str>::new());
        assert_eq!(gateway.appointment(keys.key(1), &id(1)).await.codes(), codes);
    }
}

#[tokio::test]
async fn a_malformed_file_is_reported_by_line_number_only() {
    let good = std::fs::read_to_string(KeyFile::of(&["alice"]).path()).unwrap();
    let bad = TempFile::with(&format!("# ours\n{good}hunter2\nbob:hunter2\n"));
    for (path, told) in [
        (bad.path(), &["line 3 is not", "line 4 has a digest", "api-key NAME"][..]),
        (TempFile::with("").path(), &["no key"]),
        (TempFile::with("# nobody yet\n").path(), &["no key"]),
        ("/does/not/exist", &["cannot be read"]),
    ] {
        let settings = [("identity.mode", "service"), ("callers.api_keys_file", path)];
        let ended = FinishedRun::of(program(&["serve"], &settings)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        for part in [&["GATEWAY_CALLERS_API_KEYS_FILE"], told].concat() {
            assert!(ended.stderr.contains(part), "{part} in {ended:?}");
        }
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    }
}

/// As in `docs/operations.md`: a key, its line in a file, and the sandbox with a client of its own.
#[tokio::test]
async fn a_key_that_the_program_made_opens_the_sandbox() {
    let made = FinishedRun::of(program(&["api-key", "alice"], &[])).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stdout.starts_with("alice:") && made.stdout.lines().count() == 1, "{made:?}");
    let key = made.stderr.split_whitespace().find(|word| word.starts_with("agw_")).unwrap();
    assert!(!made.stdout.contains(key) && key.len() > 40, "{made:?}");
    let file = TempFile::with(&made.stdout);
    let settings = [("identity.mode", "service"), ("callers.api_keys_file", file.path())];
    let gateway = Gateway::on_sandbox(&settings).await;
    let id = gateway.sandbox_ids().await.remove(0);
    let reply = gateway.appointment(key, &id).await;
    assert_eq!(reply.appointment()["id"], id.as_str());
    assert_eq!(gateway.appointment("sandbox-all", &id).await.codes(), ["UNAUTHENTICATED"]);
    let stdout = gateway.stdout();
    assert!(stdout.contains("service mode") && !stdout.contains("sandbox-all"), "{stdout}");

    let nameless = FinishedRun::of(program(&["api-key", "a:b"], &[])).await;
    assert!(nameless.code == Some(2) && nameless.stderr.contains("letters"), "{nameless:?}");
}

#[tokio::test]
async fn subscriptions_need_the_key_on_both_transports() {
    let upstream = Upstream::with_tokens().await;
    let keys = KeyFile::of(&["alice"]);
    let gateway = Gateway::of_service(&upstream, &[("callers.api_keys_file", keys.path())]).await;
    let watch = format!("subscription {{ appointmentChanged(id: \"{}\") {{ reference }} }}", id(1));
    let seen = json!({ "data": { "appointmentChanged": { "reference": "service-1" } } });

    let mut events = Events::open(&gateway, keys.key(0), &watch).await;
    assert_eq!(events.next().await, seen);
    let mut refused = Events::open(&gateway, "nobody", &watch).await;
    let Event::Next(answer) = refused.event().await else { panic!("an answer was expected") };
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");

    let mut socket = Socket::connect(&gateway, keys.key(0)).await;
    socket.subscribe("a", &watch).await;
    assert_eq!(socket.receive().await["payload"], seen);
    let mut refused = Socket::connect(&gateway, "nobody").await;
    refused.subscribe("a", &watch).await;
    assert_eq!(refused.receive().await.to_string().matches("UNAUTHENTICATED").count(), 1);
    assert_eq!(upstream.calls_for("token"), 1);
}
