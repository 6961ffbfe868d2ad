//! Edits over tables that outlive the index, as a disk outlives a process.

use http::HeaderMap;

use super::*;
use crate::replication::store::memory::Disk;
use crate::tenancy::keys::AuthError;
use crate::tenancy::limit_spec::LimitSpec;
use crate::tenancy::listing::KeyState;
use crate::tenancy::metrics::Metrics;
use crate::tenancy::quota::Applies;
use crate::tenancy::quota::What;
use crate::tenancy::rows::ModelRow;

struct Node {
    edits: Edits,
    keys: Arc<Keys>,
    tables: replication::Handle,
    tasks: Tasks,
}

/// A node's start over what was kept.
fn start(disk: &Disk) -> Node {
    let (tasks, keys) = (Tasks::new(), Arc::new(Keys::new(Vec::new(), Metrics::default())));
    let tables = replication::alone(disk, &tasks);
    let edits = Edits::start(
        Arc::clone(&keys),
        tables.clone(),
        Entropy::from_os(),
        tokio::sync::watch::Sender::default(),
        &tasks,
    );
    Node { edits, keys, tables, tasks }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("valid")
}

fn new(name: &str, of: &str, role: Role) -> NewKey {
    NewKey { name: name.to_owned(), tenant: tenant(of), role, key: None }
}

fn headers(key: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-api-key"), key.parse().expect("a header value"))])
}

impl Node {
    fn ask(&self, key: &Secret) -> Result<String, AuthError> {
        self.keys.authenticate(&headers(key.expose())).map(|it| it.name.to_string())
    }

    async fn key(&self, name: &str, of: &str, role: Role) -> (KeyId, Secret) {
        let (edited, key) = self.edits.add_key(new(name, of, role)).await.expect("is added");
        (edited.what.id.expect("it is in the table"), key)
    }
}

#[tokio::test]
async fn a_key_works_until_it_is_removed_and_stays_so_over_restarts() {
    let disk = Disk::default();
    let node = start(&disk);
    assert!(node.keys.authenticate(&HeaderMap::new()).is_ok(), "nobody needs a key yet");
    assert_eq!(
        node.edits.add_key(new("a", "team", Role::User)).await.unwrap_err(),
        EditError::NoTenant(tenant("team"))
    );
    node.edits.add_tenant("team", true).await.unwrap();
    let (edited, key) = node.edits.add_key(new("app", "team", Role::User)).await.unwrap();
    assert_eq!(edited.note.as_deref(), Some("From now on model requests need a key, at every node."));
    let id = edited.what.id.unwrap();
    assert_eq!(node.ask(&key), Ok("app".to_owned()));
    assert_eq!(node.keys.authenticate(&HeaderMap::new()).unwrap_err(), AuthError::Missing);
    // Rotated: the second first.
    let (second, rotated) = node.key("app", "team", Role::User).await;
    node.edits.remove_key(id).await.unwrap();

    let node = start(&disk);
    assert_eq!((node.ask(&key), node.ask(&rotated)), (Err(AuthError::Unknown), Ok("app".to_owned())));
    assert_eq!(node.edits.remove_key(id).await.unwrap_err(), EditError::UnknownKey(id));
    node.edits.disable_key(second, true).await.unwrap();
    assert_eq!(node.ask(&rotated), Err(AuthError::Disabled));
    let node = start(&disk);
    assert_eq!(node.ask(&rotated), Err(AuthError::Disabled));
    node.edits.disable_key(second, false).await.unwrap();
    assert_eq!(node.ask(&rotated), Ok("app".to_owned()));
    let removed = node.edits.remove_key(second).await.unwrap();
    assert_eq!(removed.note.as_deref(), Some("No key is left: model requests need none."));
    assert!(start(&disk).keys.authenticate(&HeaderMap::new()).is_ok());
}

#[tokio::test]
async fn an_admin_key_of_the_table_closes_the_admin_api_and_the_last_one_opens_it_again() {
    let node = start(&Disk::default());
    node.edits.add_tenant("ops", true).await.unwrap();
    let (edited, key) = node.edits.add_key(new("root", "ops", Role::Admin)).await.unwrap();
    assert!(edited.note.unwrap().contains("at every node, on loopback too"));
    assert_eq!(node.keys.authorise_admin(&HeaderMap::new(), true).unwrap_err(), AuthError::Missing);
    let author = node.keys.authorise_admin(&headers(key.expose()), false).unwrap();
    for error in [
        node.edits.enable_tenant(tenant("ops"), false, Some(&author)).await.unwrap_err(),
        node.edits.remove_tenant(tenant("ops"), Some(&author)).await.unwrap_err(),
    ] {
        assert_eq!(error, EditError::OwnTenant, "nobody locks himself out");
    }
    let removed = node.edits.remove_key(edited.what.id.unwrap()).await.unwrap();
    assert!(removed.note.unwrap().contains("No admin key is left"));
    assert!(node.keys.authorise_admin(&HeaderMap::new(), true).is_ok());
    assert_eq!(node.keys.authorise_admin(&HeaderMap::new(), false).unwrap_err(), AuthError::NotLoopback);
}

#[tokio::test]
async fn keys_of_a_tenant_that_was_disabled_or_removed_are_refused_and_those_of_a_removed_one_for_good() {
    let disk = Disk::default();
    let node = start(&disk);
    node.edits.add_tenant("team", true).await.unwrap();
    let (id, key) = node.key("app", "team", Role::User).await;
    node.edits.enable_tenant(tenant("team"), false, None).await.unwrap();
    assert_eq!(node.ask(&key), Err(AuthError::TenantDisabled(tenant("team"))));
    node.edits.enable_tenant(tenant("team"), true, None).await.unwrap();
    assert_eq!(node.ask(&key), Ok("app".to_owned()));
    assert_eq!(node.edits.remove_tenant(tenant("team"), None).await.unwrap().what.keys, 1);
    assert_eq!(node.ask(&key), Err(AuthError::TenantGone(tenant("team"))));

    let node = start(&disk);
    node.edits.add_tenant("team", true).await.unwrap();
    assert_eq!(node.ask(&key), Err(AuthError::TenantGone(tenant("team"))), "another tenant of the same name");
    assert_eq!(node.keys.get(id).unwrap().state, KeyState::TenantRemoved);
    let (_, key) = node.key("app", "team", Role::User).await;
    assert_eq!(node.ask(&key), Ok("app".to_owned()));
}

#[tokio::test]
async fn what_is_given_is_checked_and_no_refusal_repeats_a_key() {
    let node = start(&Disk::default());
    for name in ["", "anonymous", "a b", "..", "a/b", &"x".repeat(65), "\u{e9}"] {
        assert_eq!(node.edits.add_tenant(name, true).await.unwrap_err(), EditError::TenantName, "{name}");
    }
    node.edits.add_tenant("team", true).await.unwrap();
    assert_eq!(node.edits.add_tenant("team", true).await.unwrap_err(), EditError::TenantTaken(tenant("team")));
    node.keys.replace(vec![super::super::keys::Key {
        principal: Arc::new(Principal { name: "ops".into(), tenant: tenant("x"), role: Role::Admin, id: None }),
        secret: Secret::new("sk-canary-configured"),
    }]);
    let give = async |key: &str| {
        let key = Some(Secret::new(key));
        node.edits.add_key(NewKey { key, ..new("app", "team", Role::User) }).await
    };
    give("sk-canary-given-0").await.unwrap();
    for key in ["canary", "canary with some spaces", "sk-canary-configured", "sk-canary-given-0"] {
        let error = give(key).await.map(drop).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }
    let error = node.edits.add_key(new("a\nb", "team", Role::User)).await.unwrap_err();
    assert!(matches!(error, EditError::KeyName(_)), "{error}");
    assert!(!format!("{:?}", node.keys.list()).contains("canary"));
}

/// What other nodes edit arrives in the tables, not through the door.
#[tokio::test]
async fn what_the_tables_say_is_put_in_force_when_it_arrives_and_one_key_at_two_nodes_is_one_key() {
    let node = start(&Disk::default());
    let row = |name: &str| KeyRow {
        hash: KeyHash::of(b"sk-far"),
        principal: Arc::new(Principal { name: name.into(), tenant: tenant("far"), role: Role::User, id: None }),
        tenant: InstanceId(9),
        is_disabled: false,
        quotas: Quotas::default(),
    };
    let team = TenantRow { name: tenant("far"), is_enabled: true, quotas: Quotas::default() };
    let edits = vec![
        Edit::Add(KEYS, InstanceId(7), KeyRow::KIND, row("older").write()),
        Edit::Add(KEYS, InstanceId(5), KeyRow::KIND, row("younger").write()),
        Edit::Add(TENANTS, InstanceId(9), TenantRow::KIND, team.write()),
    ];
    node.tables.edit(edits).await.unwrap();
    let deadline = Clock.now() + Duration::from_secs(10);
    while node.ask(&Secret::new("sk-far")) != Ok("older".to_owned()) {
        assert!(Clock.now() < deadline, "not in time");
        tokio::task::yield_now().await;
    }
    assert_eq!(node.keys.list().len(), 1);
    node.edits.remove_key(KeyId(InstanceId(5))).await.unwrap();
    assert_eq!(node.tables.admin(KEYS, |it| it.entries().count()), 0, "both went with one DELETE");
    node.tasks.stop_stage(Stage::Decide, Duration::from_secs(5)).await;
}

/// P8, and the enemy who floods keys and tenants: the bound answers, and what is there stays quick to find.
#[tokio::test]
async fn p8_a_flood_of_keys_ends_at_the_bound_and_lookups_do_not_grow_with_it() {
    let node = start(&Disk::default());
    node.edits.add_tenant("team", true).await.unwrap();
    let team = node.keys.read(|index| index.tenant(&tenant("team")).map(|it| it.0.id)).unwrap();
    let principal = Arc::new(Principal { name: "app".into(), tenant: tenant("team"), role: Role::User, id: None });
    let flood = |n: u32| {
        let hash = KeyHash::of(format!("sk-flood-{n:012}").as_bytes());
        let row = KeyRow {
            hash,
            principal: Arc::clone(&principal),
            tenant: team,
            is_disabled: false,
            quotas: Quotas::default(),
        };
        Edit::Add(KEYS, InstanceId(n.into()), KeyRow::KIND, row.write())
    };
    node.tables.edit((1..=20_000).map(flood).collect()).await.unwrap();
    node.edits.0.apply();
    let ask = |n: u32| node.ask(&Secret::new(&format!("sk-flood-{n:012}")));
    assert!((1..=20_000).all(|n| ask(n).is_ok()) && ask(20_001) == Err(AuthError::Unknown));
    let longest = node.keys.read(|index| index.same_key(&KeyHash::of(b"sk-flood-000000000001")).count());
    assert_eq!(longest, 1);
    // An edit reads what it changes, not what is there.
    let (id, key) = node.key("late", "team", Role::User).await;
    assert_eq!(node.ask(&key), Ok("late".to_owned()));
    node.edits.remove_key(id).await.unwrap();

    let bound = 65_536_u32;
    node.tables.edit((20_001..=bound).map(flood).collect()).await.unwrap();
    let error = node.edits.add_key(new("more", "team", Role::User)).await.map(drop).unwrap_err();
    assert_eq!(error, EditError::TooManyKeys);
    assert_eq!(node.tables.admin(KEYS, |it| it.entries().count()), 65_536);
    node.edits.0.apply();
    assert_eq!(ask(bound), Ok("app".to_owned()));
    let freed = node.keys.list().pop().and_then(|it| it.id).unwrap();
    node.edits.remove_key(freed).await.unwrap();
    node.key("more", "team", Role::User).await;
}

fn what(kind: &str, per: &str) -> What {
    What::parse(kind, per).expect("is one")
}

/// The limits in force of a request, as people would say it.
fn applying(node: &Node, principal: &Principal, model: &str) -> Vec<String> {
    let model = ModelId::parse(model).expect("valid");
    let shown = |it: Applies| format!("{} {} {}", it.scope.as_str(), it.units, it.what);
    node.keys.applying(principal, &model).into_iter().map(shown).collect()
}

#[tokio::test]
async fn limits_of_key_tenant_and_model_all_apply_and_stay_over_a_restart() {
    let disk = Disk::default();
    let node = start(&disk);
    node.edits.add_tenant("team", true).await.unwrap();
    let (id, key) = node.key("app", "team", Role::User).await;
    let (_, other) = node.key("other", "team", Role::User).await;
    let model = || ModelId::parse("org/m:8b").expect("valid");
    let (rpm, tps) = (what("requests", "minute"), what("tokens", "second"));
    node.edits.limit_key(id, vec![(rpm, Some(5)), (tps, Some(50))]).await.unwrap();
    node.edits.limit_tenant(tenant("team"), vec![(rpm, Some(7))]).await.unwrap();
    node.edits.limit_model(model(), vec![(rpm, Some(9))]).await.unwrap();

    let node = start(&disk);
    let who = |key: &Secret| node.keys.authenticate(&headers(key.expose())).expect("let in");
    let of_team = ["tenant 7 requests per minute", "model 9 requests per minute"];
    assert_eq!(
        applying(&node, &who(&key), "org/m:8b"),
        [&["key 5 requests per minute", "key 50 tokens per second"][..], &of_team[..]].concat()
    );
    assert_eq!(applying(&node, &who(&other), "org/m:8b"), of_team, "a limit of a key is that key's");
    assert_eq!(applying(&node, &who(&other), "org/m"), of_team[..1], "a name is compared whole");
    let nobody = Principal { name: ANONYMOUS.into(), tenant: tenant(ANONYMOUS), role: Role::User, id: None };
    assert_eq!(applying(&node, &nobody, "org/m:8b"), of_team[1..], "a model's limit needs no key");
    assert_eq!(node.keys.get(id).unwrap().quotas.len(), 2);

    node.edits.limit_key(id, vec![(rpm, None), (tps, None)]).await.unwrap();
    node.edits.forget_model(model()).await.unwrap();
    assert_eq!(node.edits.forget_model(model()).await.unwrap_err(), EditError::UnknownModel(model()));
    assert_eq!(applying(&node, &who(&key), "org/m:8b"), of_team[..1]);
    assert!(node.keys.models().is_empty());
}

#[tokio::test]
async fn a_limit_that_cannot_be_is_refused_and_nothing_is_made_of_it() {
    let node = start(&Disk::default());
    let model = || ModelId::parse("m").expect("valid");
    let rpm = what("requests", "minute");
    let edit = node.edits.limit_model(model(), vec![(rpm, Some(1 << 40))]).await;
    assert!(matches!(edit.unwrap_err(), EditError::Quota(_)));
    node.edits.limit_model(model(), vec![(rpm, None)]).await.unwrap();
    assert_eq!(node.tables.admin(MODELS, |it| it.entries().count()), 0, "to take nothing away makes no row");
    let id = KeyId(InstanceId(1));
    assert_eq!(node.edits.limit_key(id, vec![(rpm, Some(1))]).await.unwrap_err(), EditError::UnknownKey(id));
    let gone = tenant("gone");
    assert_eq!(
        node.edits.limit_tenant(gone.clone(), vec![(rpm, Some(1))]).await.unwrap_err(),
        EditError::UnknownTenant(gone)
    );
}

fn spec(text: &str) -> LimitSpec {
    use crate::base::setting::Setting as _;
    LimitSpec::parse(text).expect("a limit")
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = Clock.now() + Duration::from_secs(10);
    while !is() {
        assert!(Clock.now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn limits_of_the_configuration_are_written_once_and_again_when_it_is_read_again() {
    let node = start(&Disk::default());
    node.edits.add_tenant("team", true).await.unwrap();
    let (id, _) = node.key("app", "team", Role::User).await;
    let rpm = what("requests", "minute");
    let wanted = || {
        ["tenant:team:requests:minute:6", "key:app:requests:minute:5", "model:m:requests:minute:4"].map(spec).to_vec()
    };
    node.edits.configure_limits(wanted());
    node.edits.write_configured(Duration::ZERO, &node.tasks);
    let of = |quotas: Vec<(What, u64, crate::limits::LimitId)>| quotas.first().map(|it| it.1);
    let of_tenant = || node.keys.tenant(&tenant("team")).and_then(|it| of(it.quotas));
    let all = || {
        let model = node.keys.model(&ModelId::parse("m").unwrap()).and_then(|it| of(it.quotas));
        [of_tenant(), node.keys.get(id).and_then(|it| of(it.quotas)), model]
    };
    until("all three are written", || all() == [Some(6), Some(5), Some(4)]).await;
    // Somebody knows better: that holds until the file is read again.
    node.edits.limit_tenant(tenant("team"), vec![(rpm, Some(60))]).await.unwrap();
    let (late, _) = node.key("app", "team", Role::User).await;
    until("a second key of that name has its limit, too", || {
        node.keys.get(late).and_then(|it| of(it.quotas)) == Some(5)
    })
    .await;
    assert_eq!(of_tenant(), Some(60));
    node.edits.configure_limits(wanted());
    until("it is read again", || of_tenant() == Some(6)).await;
    // What the file does not name any more stays.
    node.edits.configure_limits(wanted().split_off(1));
    node.edits.limit_key(id, vec![(rpm, None)]).await.unwrap();
    node.edits.configure_limits(wanted().split_off(1));
    until("the key is limited again", || all() == [Some(6), Some(5), Some(4)]).await;
    node.tasks.stop_stage(Stage::Decide, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_limit_of_nobody_names_the_nearest_name_and_is_written_when_somebody_comes() {
    let node = start(&Disk::default());
    node.edits.add_tenant("teams", true).await.unwrap();
    node.edits.configure_limits(vec![spec("tenant:team:requests:minute:6")]);
    node.edits.write_configured(Duration::ZERO, &node.tasks);
    let says = "a limit is configured for tenant `team`, which does not exist (yet); did you mean `teams`?";
    assert_eq!(node.edits.0.missing(&spec("tenant:team:requests:minute:6")), says);
    assert!(!node.edits.0.missing(&spec("key:entirely-different:requests:minute:6")).contains("did you mean"));
    node.edits.add_tenant("team", true).await.unwrap();
    until("it is written", || node.keys.tenant(&tenant("team")).is_some_and(|it| it.quotas.len() == 1)).await;
    node.tasks.stop_stage(Stage::Decide, Duration::from_secs(5)).await;
}

/// Two nodes that limit a model for the first time at once make two rows: one counts everywhere, and an edit reaches both.
#[tokio::test]
async fn a_model_that_two_nodes_limit_at_once_has_one_limit() {
    let node = start(&Disk::default());
    let (name, rpm) = (ModelId::parse("m").expect("valid"), what("requests", "minute"));
    let row = |units| {
        let row = ModelRow { name: name.clone(), quotas: Quotas::default() };
        [row.write(), rows::limited(&[(rpm, Some(units))])].concat()
    };
    let add = |id, units| Edit::Add(MODELS, InstanceId(id), ModelRow::KIND, row(units));
    node.tables.edit(vec![add(9, 1), add(3, 2)]).await.unwrap();
    node.edits.0.apply();
    assert_eq!(node.keys.models().len(), 1);
    assert_eq!(node.keys.model(&name).unwrap().quotas[0].1, 1, "the older one");
    node.edits.limit_model(name.clone(), vec![(rpm, Some(3))]).await.unwrap();
    let units: Vec<_> = node.keys.read(|index| index.models.rows().map(|it| it.1.quotas.clone()).collect());
    assert!(units.len() == 2 && units.iter().all(|it| it.iter().all(|it| it.1.units == 3)), "{units:?}");
    node.edits.forget_model(name).await.unwrap();
    assert_eq!(node.tables.admin(MODELS, |it| it.entries().count()), 0);
}
