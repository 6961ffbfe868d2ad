//! The simulation can fail: each planted bug is found by the claim that it breaks.

use std::panic::catch_unwind;

use super::faults as claims;
use crate::membership::faults;
use crate::membership::faults::Fault;

#[test]
fn every_planted_bug_of_membership_is_found_by_the_claim_that_it_breaks() {
    for fault in faults::ALL {
        let claim = match fault {
            Fault::SleepCounts | Fault::SuspicionsRunOn => claims::a_suspicion_does_not_run_out_while_its_holder_sleeps,
            Fault::AnySenderIsBelieved => claims::a_member_cannot_speak_in_the_name_of_another,
            Fault::GoodbyesAreNotHeard => claims::a_goodbye_is_not_a_death,
        };
        faults::plant(Some(*fault));
        let found = catch_unwind(claim);
        faults::plant(None);
        assert!(found.is_err(), "{fault:?} was not found");
    }
}
