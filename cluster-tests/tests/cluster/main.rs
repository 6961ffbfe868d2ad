//! Whole clusters: real processes in network namespaces behind the switch of `cluster_tests::net`.
//!
//! `make test-cluster` runs the scenarios, one line each; words after `--` choose by name. `make report-cluster` runs what takes figures instead.

mod ask;
mod case;
mod fleet;
mod forming;
mod killing;
mod load;
mod runner;
mod splitting;
mod stalling;
mod strangers;
mod switch;
mod wire;

use std::process::ExitCode;

use runner::Scenario;

fn main() -> ExitCode {
    runner::run(&[
        Scenario::new("the_switch_does_what_it_says", 2, switch::does_what_it_says),
        Scenario::new("nodes_split_for_a_minute_are_whole_again", 8, splitting::for_a_minute),
        Scenario::new("nodes_form_a_cluster_in_any_order", 8, forming::in_any_order),
        Scenario::new("nodes_find_each_other_by_name", 3, forming::by_name),
        Scenario::new("a_killed_node_is_seen_and_comes_back", 5, killing::is_seen),
        Scenario::new("nobody_that_runs_is_declared_down_at_5_percent_loss", 8, stalling::at_loss),
        Scenario::new("a_one_way_cut_evicts_nobody_who_can_be_reached", 3, splitting::one_way),
        Scenario::new("a_paused_observer_evicts_nobody", 5, stalling::paused),
        Scenario::new("who_is_no_member_stays_out", 3, strangers::stay_out),
        Scenario::new("a_copied_data_directory_does_not_start", 3, strangers::copied_directory),
        Scenario::new("noise_and_replays_change_nothing", 3, wire::noise_and_replays),
        Scenario::new("p1_a_killed_node_fails_nothing_elsewhere", 3, load::killed),
        Scenario::new("p1_a_draining_node_fails_nothing", 3, load::drained),
    ])
}
