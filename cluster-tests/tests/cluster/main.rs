//! Whole clusters: real processes in network namespaces behind the switch of `cluster_tests::net`.
//!
//! `make test-cluster` runs the scenarios, one line each; arguments are words that choose by name. `make report-cluster` runs what takes figures instead.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what it is for")]

mod ask;
mod case;
mod control;
mod edits;
mod fleet;
mod forming;
mod forwarding;
mod history;
mod killing;
mod limiting;
mod load;
mod prefixes;
mod report;
mod rolling;
mod rounds;
mod runner;
mod secrets;
mod splitting;
mod stalling;
mod strangers;
mod switch;
mod trail;
mod wire;
mod workers;

use std::process::ExitCode;

use runner::Scenario;

fn main() -> ExitCode {
    // ORDER: before there is another thread. Where it cannot be done, `is_possible` says why.
    let _ = cluster_tests::disk::own_mounts();
    let is_asked = |flag: &str| std::env::args().any(|it| it == flag);
    match () {
        () if is_asked("--rounds") => rounds::run(),
        () if is_asked("--score") => rounds::score(),
        () if is_asked("--soak") => rounds::soak(),
        () if is_asked("--report") => runner::run(&report::all()),
        () => runner::run(&scenarios()),
    }
}

fn scenarios() -> Vec<Scenario> {
    let mut all = every();
    // It needs the program of another release: `make test-upgrade` builds it.
    if std::env::var_os("OLD_BIN").is_some() {
        all.push(Scenario::new("p10_an_upgrade_node_by_node_and_back_fails_nothing", 3, rolling::upgraded));
    }
    all
}

fn every() -> Vec<Scenario> {
    vec![
        Scenario::new("the_switch_does_what_it_says", 2, switch::does_what_it_says),
        // It has 33 nodes: nothing runs beside it.
        Scenario::new("nodes_split_for_a_minute_are_whole_again", 16, splitting::for_a_minute),
        Scenario::new("nodes_form_a_cluster_in_any_order", 8, forming::in_any_order),
        Scenario::new("nodes_find_each_other_by_name", 3, forming::by_name),
        Scenario::new("a_killed_node_is_seen_and_comes_back", 5, killing::is_seen),
        Scenario::new("nobody_that_runs_is_declared_down_at_5_percent_loss", 8, stalling::at_loss),
        Scenario::new("a_one_way_cut_evicts_nobody_who_can_be_reached", 3, splitting::one_way),
        Scenario::new("a_paused_observer_evicts_nobody", 5, stalling::paused),
        Scenario::new("nodes_that_run_by_fits_and_starts_are_whole_afterwards", 5, stalling::by_fits_and_starts),
        Scenario::new("who_is_no_member_stays_out", 3, strangers::stay_out),
        Scenario::new("a_copied_data_directory_does_not_start", 3, strangers::copied_directory),
        Scenario::new("noise_and_replays_change_nothing", 3, wire::noise_and_replays),
        Scenario::new("p1_a_killed_node_fails_nothing_elsewhere", 3, load::killed),
        Scenario::new("p1_a_draining_node_fails_nothing", 3, load::drained),
        Scenario::new("p10_nodes_restarted_one_by_one_fail_nothing", 3, rolling::restarted),
        Scenario::new("p10_what_waits_in_the_background_outlives_a_draining_node", 3, rolling::background),
        Scenario::new("p1_a_split_and_a_slow_mesh_fail_and_slow_nothing", 3, load::split),
        Scenario::new("field_02_no_slot_leaks_whoever_ends_a_request", 3, load::field_02_slots),
        Scenario::new("field_08_a_late_node_sends_conversations_where_they_are_remembered", 3, prefixes::field_08_late),
        Scenario::new("a_key_bound_at_one_node_is_bound_at_all", 3, prefixes::bindings),
        Scenario::new("a_worker_added_at_one_node_is_used_at_all_within_a_second", 5, workers::added),
        Scenario::new("a_worker_outlives_the_node_that_was_told_of_it", 3, workers::outlive_their_node),
        Scenario::new("field_04_a_removed_worker_gets_no_request_from_anybody", 3, workers::field_04_removed),
        Scenario::new("field_12_a_deleted_worker_stays_away_from_the_flag", 3, workers::field_12_flag),
        Scenario::new("field_12_an_edit_that_races_a_delete_revives_nothing", 3, edits::field_12_races),
        Scenario::new("field_12_a_revoked_key_stays_revoked_everywhere", 4, edits::field_12_revoked),
        Scenario::new("field_15_a_long_split_with_edits_on_both_sides_heals", 5, edits::field_15_split),
        Scenario::new("what_was_answered_survives_the_death_of_all", 3, edits::durable),
        Scenario::new("a_full_disk_promises_nothing_and_stops_nobody", 3, edits::disk_full),
        Scenario::new("p4_a_limit_holds_once_for_all_nodes", 3, limiting::p4_holds_once),
        Scenario::new("p4_a_node_without_a_store_admits_nothing_of_a_limit", 3, limiting::no_store),
        Scenario::new("control_is_one_group_whose_leaders_are_killed", 4, control::leaders_killed),
        Scenario::new("control_lives_with_full_disks", 3, control::disks_full),
        Scenario::new(
            "p4_no_more_streams_than_the_limit_are_open_whoever_is_cut_off_or_killed",
            3,
            limiting::streams_at_a_time,
        ),
        Scenario::new("field_12_a_settlement_writes_over_no_edit_of_a_limit", 5, limiting::field_12_settling),
        Scenario::new("field_01_a_limit_is_not_multiplied_by_nodes", 8, limiting::field_01_times_nodes),
        Scenario::new("secrets_are_found_nowhere", 3, secrets::nowhere),
        Scenario::new("history_a_power_cut_of_one_or_of_all_nodes_loses_nothing_acknowledged", 3, history::power_cuts)
            .on_disks(),
        Scenario::new("history_on_disks_that_lie_is_lost", 3, history::disks_that_lie).on_disks(),
        Scenario::new("history_the_leader_is_killed", 3, history::leader_killed),
        Scenario::new("history_the_minority_side_says_503_and_never_404", 3, history::says_503),
        Scenario::new("history_a_background_response_outlives_its_node", 3, history::outlives),
        Scenario::new("history_bad_disks", 3, history::bad_disks),
        Scenario::new("history_a_torn_log_is_caught_up", 3, history::torn_logs),
        Scenario::new("history_full_disks_refuse_and_go_on", 3, history::full_disks),
        Scenario::new("history_store_false_leaves_no_byte", 3, history::no_byte),
        Scenario::new("field_10_history_is_everywhere_and_nobody_elses", 3, history::field_10),
        Scenario::new("a_worker_on_loopback_is_reached_through_its_node", 3, forwarding::loopback),
    ]
}
