"""Where each of the 100 acceptance lines of a Concourse worker is tested: module (below tests/) and test, without
"test_". test_worker_lines.py checks that they are there."""
LINES = {
    # Garden basics
    1: "api/test_wire::line_1_ping",
    2: "api/test_wire::line_8_empty_list",
    3: "api/test_wire::line_9_list_with_filter api/test_wire::line_10_list_with_a_filter_that_differs",
    4: "conformance/test_web_replay::web_recording",
    5: "api/test_wire::line_4_handle_in_use",
    6: "api/test_worker_lines::line_6_a_worker_has_no_root_of_its_own",
    7: "api/test_images::line_107_what_is_not_mapped",
    8: "api/test_bind_mounts::bad_bind_mounts",
    9: "api/test_containers::max_containers",
    10: "api/test_containers::line_66_a_container_in_the_making_is_not_listed",
    11: "api/test_wire::line_5_destroy_unknown",
    12: "api/test_processes::line_36_two_destroys_at_once",
    13: "api/test_processes::line_37_destroy_with_a_run_open "
        "api/test_network_default::nothing_of_it_is_left_when_it_is_gone",
    14: "api/test_bind_mounts::the_source_is_unharmed_by_destroy",
    15: "api/test_wire::unknown_handle_is_typed_on_every_route",
    16: "conformance/test_web_replay::web_recording",
    17: "api/test_wire::line_7_broken_json",
    # hijacks
    18: "api/test_worker_lines::line_18_the_head_of_a_run_and_of_an_attach "
        "api/test_processes::stream_heads_are_those_of_a_hijacked_reply",
    19: "conformance/test_goclient::scenario",
    20: "api/test_processes::line_19_streams_opened_after_the_exit",
    21: "api/test_limits_of_http::p0_75_stream_ids_are_random_and_bound",
    22: "api/test_processes::line_21_stdin_is_copied",
    23: "api/test_worker_lines::line_23_eight_megabytes_in_one_message",
    24: "api/test_processes::line_21_stdin_is_copied",
    25: "api/test_processes::line_32_a_client_that_vanishes",
    26: "api/test_processes::line_28_run_and_attach_both_get_everything",
    27: "api/test_limits_of_http::line_125_slow_readers",
    28: "api/test_processes::line_26_attach_to_an_unknown_process",
    29: "api/test_processes::line_29_attach_after_the_exit",
    30: "api/test_processes::line_16_process_id_in_use",
    31: "api/test_processes::line_30_missing_executable conformance/test_web_replay::web_recording",
    32: "api/test_processes::line_30_missing_executable api/test_processes::an_executable_that_is_none",
    33: "api/test_users::line_49_terminal_size api/test_users::line_49_resize",
    34: "api/test_worker_lines::line_34_a_task_on_a_terminal_outlives_its_client",
    35: "api/test_processes::term_ends_streams_and_idle_connections_by_fin",
    36: "conformance/test_web_replay::web_recording",
    37: "api/test_processes::line_24_signals",
    38: "api/test_users::resize_after_the_end_of_stdin",
    # what a process sees
    39: "api/test_users::line_46_default_path api/test_users::line_47_user_and_home",
    40: "api/test_users::line_39_users_and_groups api/test_users::line_47_user_and_home",
    41: "api/test_users::line_38_user_ids api/test_processes::line_31_unknown_user",
    42: "api/test_users::without_a_passwd_file",
    43: "api/test_users::line_46_path_of_the_container api/test_users::line_45_environment_order",
    44: "api/test_users::line_43_a_missing_directory_is_made",
    45: "api/test_processes::line_24_signals",
    46: "api/test_users::line_51_grandchildren_that_hold_the_pipes "
        "api/test_worker_lines::line_46_what_a_process_leaves_behind_goes_with_the_container",
    # stop
    47: "api/test_containers::line_57_stop "
        "conformance/test_web_replay::lines_47_and_90_output_of_the_trap_of_a_stopped_task_is_delivered",
    48: "api/test_containers::line_58_stop_of_a_process_that_ignores_term",
    49: "api/test_worker_lines::line_49_a_kill_ends_a_stop_that_waits",
    50: "api/test_containers::line_61_a_stopped_container_still_runs_processes",
    # properties
    51: "conformance/test_web_replay::web_recording",
    52: "api/test_worker_lines::line_52_long_properties",
    53: "api/test_worker_lines::line_53_properties_are_there_after_a_kill",
    # isolation
    54: "api/test_isolation::line_78_reference_map",
    55: "api/test_isolation::line_81_filter api/test_security_kernel::p0_33_34_36_denied_calls",
    56: "api/test_isolation::line_80_capabilities api/test_isolation::line_79_privileged",
    57: "api/test_isolation::line_84_devices api/test_isolation::line_84_privileged_has_fuse",
    58: "api/test_security_kernel::p0_43_cgroup_files_are_read_only "
        "api/test_worker_lines::line_58_who_is_privileged_may_write_to_sys",
    59: "api/test_limits::memory_and_swap_have_one_limit api/test_limits::line_89_cpu",
    60: "api/test_containers::line_55_hostname api/test_network_default::hosts_hostname_and_resolv_conf_are_its_own",
    61: "api/test_bind_mounts::nested_binds",
    62: "api/test_security_kernel::p0_33_34_36_denied_calls",
    # network
    63: "api/test_network_default::the_outside_is_reached_under_the_address_of_the_host "
        "api/test_network_default::the_host_is_not_reached",
    64: "api/test_network_attacks::a_container_on_the_host_with_host_access_reaches_all_but_our_ports",
    65: "api/test_network_ports::denied_networks_are_refused_at_once_and_the_rest_is_not "
        "api/test_network_ports::a_rule_that_names_it_opens_metadata_but_nothing_that_is_restricted",
    66: "api/test_network_attacks::a_hermetic_container_has_a_loopback_only "
        "api/test_worker_cluster::containers_without_a_rule_are_hermetic",
    67: "api/test_network_subnets::both_ends_have_the_mtu_that_was_asked_for "
        "api/test_network_subnets::the_mtu_is_that_of_the_way_out",
    68: "api/test_network_subnets::a_resolver_on_the_host_s_loopback_is_replaced",
    69: "api/test_lifecycles::random_lifecycles_leave_nothing "
        "api/test_network_default::nothing_of_it_is_left_when_it_is_gone",
    # volumes
    70: "api/test_volumes_futures::54_as_concourse_does_it",
    71: "api/test_volumes_create::35_a_handle_in_use",
    72: "api/test_volumes_futures::53_a_parent_that_is_not_there",
    73: "api/test_volumes_create::39_import_of_an_archive "
        "api/test_worker_types::registered_types_and_certificates_can_be_imported_and_run",
    74: "api/test_volumes_create::41_links_are_followed "
        "api/test_worker_types::registered_types_and_certificates_can_be_imported_and_run",
    75: "api/test_volumes_create::43_a_copy_and_its_parent_do_not_see_each_other "
        "api/test_volumes_create::44_copies_of_copies",
    76: "api/test_volumes_create::31_owner api/test_volumes_create::32_33_no_owner",
    77: "api/test_volumes_flags::94_the_flag_changes_neither_owners_nor_modes",
    78: "api/test_volumes_stream_out::74_a_file api/test_volumes_stream_out::76_a_missing_path",
    79: "api/test_volumes_stream_in::56_each_encoding api/test_volumes_stream_in::63_unknown_encoding",
    80: "api/test_volumes_stream_in::58_over_the_limit",
    81: "api/test_volumes_stream_in::62_no_archive api/test_volumes_stream_out::82_a_failure_behind_the_head",
    82: "api/test_volumes_p2p::89_from_volume_to_volume api/test_volumes_p2p::92_no_peer",
    83: "api/test_volumes_destroy::102_destroy",
    84: "api/test_volumes_destroy::108_the_same_handles_after_a_restart "
        "api/test_volumes_destroy::109_chains_after_a_restart",
    85: "api/test_volumes_routes::6_content_types",  # the time of a list of 5,000 is a figure of tests/bench
    # in a cluster
    86: "api/test_worker_cluster::86_it_registers_and_both_tunnels_carry_requests",
    88: "conformance/test_web_replay::web_recording",
    89: "conformance/test_web_replay::web_recording",
    90: "conformance/test_web_replay::lines_47_and_90_output_of_the_trap_of_a_stopped_task_is_delivered",
    91: "conformance/test_web_replay::line_91_nothing_of_a_task_is_missing_when_web_was_killed",
    92: "api/test_worker_cluster::a_killed_server_loses_nothing_and_leaves_nothing",
    93: "api/test_worker_sweep::93_what_web_gives_up_is_destroyed_and_gone_from_the_next_report",
    94: "api/test_worker_sweep::94_what_web_does_not_know_is_reported_and_then_destroyed",
    95: "api/test_volumes_stream_out::79_from_volume_to_volume api/test_volumes_p2p::89_from_volume_to_volume",
    96: "api/test_worker_life::96_land",
    97: "api/test_worker_cluster::97_no_heartbeat_while_the_volume_api_does_not_answer",
    98: "conformance/test_web_replay::web_recording",
    99: "api/test_worker_health::line_99_any_path_and_method_are_answered "
        "api/test_worker_health::line_99_an_api_that_does_not_answer_is_named",
    100: "api/test_volumes_stream_out::76_a_missing_path",
}

NOT_HERE = {
    87: "what web does with a worker of an older version; that ours says 3.0 is in line 86",
}
