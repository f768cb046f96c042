//! The list of all properties, each named once, and the macros that stamp a test for each.
//!
//! To add a property: write it in its theme's file and add its name here. A test of this crate fails when one is
//! missing.

/// Stamps one `#[tokio::test]` for each property of a storage engine, in a module for each theme.
///
/// The argument is the path of an async function without arguments that returns an [`Env`](crate::Env). The calling
/// crate needs `tokio` with `macros` and `rt-multi-thread` among its dev-dependencies.
#[macro_export]
macro_rules! conformance {
    ($fresh:path) => {
        $crate::stamp! { $fresh;
            properties::annotate {
                progress_and_lines_are_recorded_with_their_time;
                the_last_hundred_lines_are_kept;
                notes_are_answered_in_their_order;
                two_notes_on_one_job_add_up;
                a_note_does_not_extend_the_lease;
                the_log_goes_on_over_attempts;
            }
            properties::at_once {
                each_job_runs_once;
                no_epoch_is_given_twice;
                one_of_many_verdicts_counts;
                one_of_many_pushes_of_an_id_is_stored;
                a_key_has_one_holder_and_one_behind;
                a_limit_is_never_exceeded;
                a_cancellation_and_a_claim_never_both_win;
                sweeps_at_once_reclaim_each_lease_once;
                pushes_of_keys_in_opposite_orders_do_not_lock_up;
            }
            properties::bounds {
                one_bad_job_refuses_the_whole_push;
                a_batch_beyond_a_thousand_is_refused;
                a_claim_out_of_bounds_takes_nothing;
                a_bad_claim_leaves_its_verdicts_unsaid;
                one_bad_verdict_refuses_the_whole_settle;
                a_lease_out_of_bounds_is_not_extended;
                a_sweep_has_a_size;
                the_largest_output_comes_back_whole;
                what_is_at_its_limit_is_taken;
            }
            properties::cancel {
                a_waiting_job_never_starts;
                a_retrying_job_never_starts_again;
                a_running_job_is_told_at_its_next_beat;
                a_requested_job_keeps_its_lease;
                its_own_outcome_wins_the_race;
                a_job_that_would_come_back_is_cancelled_instead;
                a_job_that_is_handed_back_is_cancelled_instead;
                a_lost_lease_with_a_request_is_cancelled;
                an_ended_or_missing_job_is_left_alone;
                asking_twice_is_as_asking_once;
                a_request_does_not_outlive_its_run;
                a_long_reason_is_clipped;
            }
            properties::claim {
                a_claimed_job_carries_all_that_a_worker_needs;
                a_claimed_job_is_nobody_elses;
                a_claim_takes_no_more_than_its_limit;
                a_claim_of_nothing_takes_nothing;
                a_claim_takes_from_its_own_queues_only;
                a_worker_without_kinds_gets_nothing;
                epochs_rise_with_every_claim;
                jobs_ahead_come_last_and_are_marked;
                jobs_ahead_fill_up_from_later_queues;
                a_claim_names_the_next_due_job;
                settle_and_claim_does_both;
                a_claim_whose_answer_was_lost_can_be_handed_back;
                a_session_hands_back_all_it_holds;
                a_large_session_is_handed_back_a_thousand_at_a_time;
            }
            properties::dropped {
                a_dropped_push_is_whole_or_nothing;
                a_dropped_settle_is_whole_or_nothing;
                a_dropped_claim_loses_no_job;
            }
            properties::fence {
                a_stale_verdict_changes_nothing_while_another_runs;
                a_stale_verdict_changes_nothing_once_reclaimed;
                a_stale_verdict_changes_nothing_after_anothers_end;
                a_guessed_nonce_changes_nothing;
                a_guessed_epoch_changes_nothing;
                bad_leases_among_good_ones_are_the_only_ones_refused;
                one_nonce_for_two_claims_does_not_join_their_leases;
                a_handle_is_not_trusted;
                a_lease_of_another_queue_changes_nothing;
                a_lease_of_nobody_is_lost;
                a_repeated_verdict_is_already_applied;
                a_repeat_is_known_while_the_job_waits_and_after_it_was_cancelled;
                a_repeat_is_known_after_the_job_became_due;
                a_repeat_is_known_after_a_revival;
                a_repeat_after_the_next_claim_is_lost;
                a_lease_that_was_never_settled_is_never_already_applied;
                a_verdict_after_expiry_but_before_the_sweep_is_applied;
                a_verdict_for_a_forgotten_job_is_lost;
            }
            properties::inspect {
                what_is_not_stored_is_not_found;
                looking_changes_nothing;
                a_listing_is_in_the_order_of_the_ids;
                one_id_in_two_queues_is_listed_twice;
                filters_hold_together;
                a_filter_finds_each_state;
                a_listing_goes_on_while_jobs_come_and_go;
                a_page_has_a_size;
                a_strange_cursor_is_refused;
                queues_are_listed_by_name_once_they_held_a_job;
                a_second_handle_sees_the_same_store;
            }
            properties::lease {
                a_lease_expires_at_its_end_and_not_before;
                an_expired_lease_is_left_to_the_sweep;
                a_lost_lease_is_counted_and_makes_a_suspect;
                an_extend_lasts_from_now;
                an_expired_lease_can_still_be_kept;
                what_an_extend_does_not_name_lapses;
                a_beat_is_answered_in_its_order;
                a_longer_lease_is_as_long_as_asked;
                a_reclaimed_job_keeps_its_place;
                a_job_ahead_counts_no_lost_lease_until_it_started;
                a_job_ahead_counts_a_lost_lease_once_a_beat_names_it_started;
                a_sweep_takes_back_a_bounded_number;
                a_second_handle_reclaims_what_the_first_lost;
                a_release_or_a_retry_after_an_expiry_counts_no_loss;
            }
            properties::limit {
                jobs_beyond_the_limit_are_blocked;
                every_end_lets_the_next_in;
                a_waiting_job_that_is_cancelled_gives_its_place_away;
                a_job_that_backs_off_gives_its_place_away;
                a_job_that_fails_at_once_lets_others_go_first;
                a_job_that_comes_back_ahead_of_those_who_wait_is_let_in_and_its_verdict_says_so;
                a_released_job_keeps_its_place_under_the_limit;
                a_lost_lease_keeps_its_place_under_the_limit;
                a_handed_back_job_keeps_its_place_under_the_limit;
                places_go_by_priority_then_first_come;
                due_jobs_are_promoted_no_further_than_the_limit;
                a_scheduled_job_takes_no_place;
                keys_do_not_count_against_each_other;
                jobs_that_disagree_are_held_to_their_own_number;
                a_blocked_job_that_leaves_holds_nobody_up;
                run_now_does_not_pass_the_limit;
                a_revived_job_does_not_pass_the_limit;
            }
            properties::order {
                jobs_of_one_priority_go_first_in_first_out;
                order_is_entry_and_not_the_id;
                ten_priorities_go_highest_first;
                a_late_urgent_job_overtakes;
                due_jobs_enter_in_due_order;
                due_jobs_of_higher_priority_still_go_first;
                a_promoted_job_goes_behind_those_that_were_ready;
                a_retried_job_enters_anew;
                a_released_job_keeps_its_place;
                a_claim_looks_into_its_queues_in_turn;
            }
            properties::outcomes {
                each_job_has_its_own_answer;
                a_job_on_its_way_has_none;
                whoever_waits_hears_of_the_end;
                whoever_waits_hears_of_a_cancellation;
                a_wait_for_an_outcome_ends;
                a_dropped_wait_costs_nothing;
            }
            properties::parents {
                a_child_waits_for_all_its_parents;
                a_parent_may_stand_earlier_in_the_batch;
                a_completed_parent_is_not_waited_for;
                one_parent_named_twice_is_one;
                a_failed_parent_cancels_the_whole_family;
                a_failed_parent_can_be_ignored;
                a_dead_parent_can_be_waited_for;
                a_cancelled_parent_is_not_waited_for;
                a_parent_that_failed_before_the_push_counts_too;
                a_dead_parent_that_is_deleted_is_waited_for_no_longer;
                a_dead_parent_out_of_retention_is_waited_for_no_longer;
                a_completed_parent_that_is_forgotten_has_still_completed;
                a_child_with_a_delay_waits_for_both;
                a_child_with_a_limit_takes_no_place_while_it_waits;
                a_child_holds_its_key_while_it_waits;
                a_cancelled_child_is_not_let_in;
                a_diamond_of_parents_is_cancelled_once;
                a_chain_of_ten_thousand_is_called_off_with_its_head;
                a_thousand_children_are_let_in;
                a_parent_in_another_queue_counts_where_queues_are_one_step;
            }
            properties::parked {
                an_unknown_kind_does_not_block_known_ones;
                what_was_moved_aside_goes_to_a_worker_that_knows_it;
                what_was_moved_aside_keeps_its_place;
                what_was_moved_aside_is_merged_with_what_came_later;
                a_newer_payload_waits_for_a_newer_worker;
                a_newer_version_with_an_old_reader_is_not_held_up;
                an_unknown_kind_that_comes_back_late_is_found;
                a_crowd_of_unknown_jobs_is_passed_in_a_few_claims;
                a_parked_suspect_does_not_block_others;
                a_parked_job_can_be_cancelled;
            }
            properties::pause {
                a_paused_queue_gives_nothing_until_it_is_resumed;
                a_pause_holds_for_every_handle;
                a_pause_stops_one_queue_only;
                what_runs_goes_on_through_a_pause;
                a_queue_can_be_paused_before_its_first_job;
                pausing_and_resuming_twice_is_as_once;
                a_paused_queue_gives_no_suspects_and_nothing_parked_or_due;
            }
            properties::poison {
                a_job_that_loses_three_leases_is_dead;
                verdicts_between_losses_do_not_reset_them;
                one_claim_takes_one_suspect;
                one_claim_of_two_queues_takes_one_suspect;
                a_claim_that_asks_for_no_suspect_gets_none;
                a_suspect_takes_a_place_of_the_limit;
                a_suspect_that_gives_a_verdict_is_cleared;
                a_released_suspect_stays_one;
                the_neighbours_of_a_poison_job_live;
                a_revived_poison_job_starts_afresh;
            }
            properties::push {
                a_job_is_stored_as_it_was_pushed;
                answers_come_in_the_order_of_the_jobs;
                the_same_id_again_changes_nothing;
                the_same_id_is_absorbed_in_every_state;
                an_id_twice_in_one_batch_is_one_job;
                one_id_in_two_queues_is_two_jobs;
                a_thousand_jobs_go_in_at_once_and_in_order;
                an_empty_push_does_nothing;
                the_largest_payload_comes_back_whole;
                an_empty_payload_and_the_widest_numbers_survive;
                a_missing_parent_refuses_the_whole_batch;
                a_repeat_is_absorbed_after_its_parent_is_gone;
            }
            properties::retention {
                each_end_is_kept_for_its_age;
                no_more_than_the_count_is_kept_and_the_newest_stay;
                the_count_holds_for_each_queue;
                keep_nothing_forgets_at_once_and_frees_the_id;
                a_kept_job_absorbs_its_id_until_it_is_forgotten;
                live_jobs_are_never_forgotten;
                the_age_counts_from_the_end;
                a_sweep_forgets_a_bounded_number;
            }
            properties::revive {
                a_dead_job_is_revived_as_a_new_generation;
                a_revived_job_enters_at_the_end_of_the_line;
                only_a_dead_job_is_revived;
                only_a_scheduled_job_is_made_due;
                only_a_finished_job_is_deleted;
                a_revived_job_takes_its_key_again;
                a_revival_whose_key_is_held_is_refused;
                a_revival_does_not_lengthen_its_window;
                run_now_makes_a_scheduled_job_due;
                run_now_cuts_a_back_off_short;
                a_deleted_id_can_be_pushed_again;
            }
            properties::schedule {
                a_delayed_job_is_due_exactly_then;
                a_sweep_promotes_what_is_due;
                an_instant_that_has_passed_means_at_once;
                a_snooze_or_retry_is_due_exactly_then;
                the_last_instant_is_clamped_and_never_due;
                a_part_of_a_millisecond_makes_nothing_early;
                a_sweep_promotes_a_bounded_number;
                a_flood_of_due_jobs_is_claimed_in_due_order;
                delays_of_one_queue_do_not_wait_for_another;
            }
            properties::settle {
                complete_keeps_the_output;
                no_output_and_an_empty_output_are_different;
                each_of_a_batch_has_its_own_output;
                a_batch_that_is_not_kept_leaves_nothing;
                retry_schedules_and_counts_an_attempt;
                retry_may_be_due_at_once;
                the_engine_counts_attempts_and_leaves_the_bound_to_the_worker;
                snooze_schedules_and_counts_nothing;
                cancel_ends_a_job_with_its_reason;
                bury_makes_a_job_dead_for_each_reason;
                release_counts_nothing;
                the_last_error_outlives_a_success;
                a_batch_is_answered_in_its_order;
                of_two_verdicts_in_a_batch_the_first_counts;
                a_batch_settles_across_queues;
                a_thousand_verdicts_are_settled_at_once;
                an_empty_settle_does_nothing;
                long_and_strange_texts_are_recorded_clipped;
            }
            properties::then_jobs {
                they_exist_once_the_verdict_is_applied;
                they_do_not_exist_when_the_lease_is_lost;
                a_repeat_gives_rise_to_nothing_more;
                only_applied_verdicts_of_a_batch_give_rise_to_jobs;
                derived_ids_absorb_what_is_dispatched_twice;
                they_obey_unique_keys_and_limits;
                one_may_take_the_key_that_the_verdict_frees;
                one_may_have_the_settled_job_as_parent;
                jobs_for_another_queue_arrive_too;
                a_thousand_ride_with_one_verdict;
                a_release_may_give_rise_to_jobs;
                one_bad_job_refuses_the_verdicts;
            }
            properties::time {
                virtual_time_is_what_the_verbs_say;
                time_never_runs_backwards;
                server_time_is_refused_in_a_virtual_namespace;
                virtual_time_is_refused_in_a_server_timed_namespace;
                server_time_drives_a_whole_life;
                a_deadline_is_resolved_by_the_engine;
            }
            properties::unique {
                a_key_is_free_in_the_step_that_ends_its_holder;
                a_key_is_free_once_a_waiting_holder_is_cancelled;
                a_key_is_free_once_its_holder_is_dead_as_poison;
                a_key_is_held_through_retries_and_lost_leases;
                a_key_until_start_is_free_at_the_first_claim;
                a_window_ends_exactly_so_long_after_the_push;
                a_sweep_frees_no_window_early;
                a_window_outlasts_whatever_became_of_its_holder;
                a_window_may_end_while_its_holder_still_waits;
                a_superseded_job_is_recorded_with_its_successor;
                debouncing_starts_the_delay_anew;
                one_waits_behind_a_running_holder;
                one_behind_waits_on_while_its_holder_comes_back;
                one_behind_keeps_its_delay;
                one_behind_can_be_cancelled_and_makes_room;
                one_behind_can_be_superseded;
                one_behind_a_window_is_let_in_at_the_holders_end;
                keys_of_other_queues_and_other_bytes_are_other_keys;
                a_key_twice_in_one_batch_conflicts_in_order;
                a_key_is_free_though_its_holder_is_forgotten_at_its_end;
                a_holder_that_is_cancelled_lets_in_the_one_behind;
                one_behind_with_parents_waits_for_both;
                one_behind_takes_its_place_under_a_limit_only_when_let_in;
            }
            properties::unique_table {
                skip_conflicts_with_whoever_holds_the_key;
                supersede_replaces_a_waiting_holder_only;
                queue_one_waits_behind_a_running_holder_only;
            }
            properties::wait {
                work_that_is_there_is_seen_at_once;
                a_push_wakes_the_sleeper;
                a_release_and_a_retry_at_once_wake_the_sleeper;
                a_place_that_becomes_free_wakes_the_sleeper;
                a_resumed_queue_wakes_the_sleeper;
                a_sweep_that_promotes_wakes_the_sleeper;
                a_revival_and_run_now_wake_the_sleeper;
                a_cancellation_wakes_the_session_that_runs_the_job;
                nothing_wakes_nobody;
                a_wait_takes_no_job;
                a_job_due_before_what_the_sleeper_knows_is_something_to_do;
            }
        }
    };
}

/// Stamps one test for each property of an engine that joins a caller's transaction.
///
/// The argument is the path of an async function that returns a [`TransactionalEnv`](crate::TransactionalEnv).
#[macro_export]
macro_rules! transactional {
    ($fresh:path) => {
        $crate::stamp! { $fresh;
            transactions {
                a_commit_makes_the_jobs_exist;
                a_rollback_leaves_nothing;
                a_dropped_transaction_leaves_nothing;
                a_verdict_holds_with_the_commit;
                a_lost_lease_cannot_be_settled_in_a_transaction;
                the_commit_or_the_loss_wins_and_never_both;
                the_same_id_is_absorbed_in_a_transaction;
                a_key_conflicts_within_a_transaction;
                a_repeat_is_known_in_a_transaction;
                of_two_verdicts_in_a_transaction_the_first_counts;
                bad_input_is_refused_in_a_transaction;
                an_empty_transaction_commits;
            }
        }
    };
}

/// The stamp itself.
#[doc(hidden)]
#[macro_export]
macro_rules! stamp {
    ($fresh:path; $(properties::$theme:ident { $($name:ident;)* })*) => {
        $($crate::stamp! { @theme $fresh; $theme; [$crate::properties::$theme]; $($name;)* })*
    };
    ($fresh:path; transactions { $($name:ident;)* }) => {
        $crate::stamp! { @theme $fresh; transactions; [$crate::transactions]; $($name;)* }
    };
    (@theme $fresh:path; $theme:ident; [$($home:tt)*]; $($name:ident;)*) => {
        mod $theme {
            #[allow(unused_imports, reason = "the path may be relative to the caller's module")]
            use super::*;
            use $($home)* as suite;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    $crate::run(stringify!($name), $fresh, suite::$name).await;
                }
            )*
        }
    };
}
