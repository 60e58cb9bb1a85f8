"""Which tests the default run takes; CI runs the others too, which have the mark `slow`.

- Of a test with three parameters or more: cases in which each pair of values of two parameters occurs.
- Of a test that `SAMPLED` or `TWICE` names: six cases or two, which have as many different values of its parameters as
  so many cases can.
- Of what `SLOW` names: nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import combinations

FEW = 6  # cases of a test that SAMPLED names: as many as there are backends

# Tests whose cases together take more than about 3 s.
SAMPLED = re.compile(
    r"test_cuda_kernels.*::test_(options_in_blocks|odd_entries|every_shape)"
    r"|test_kernel_soft_targets.*::test_every_length|test_kernel_exact.*::test_(every_length|a_largest_entry)"
    r"|test_kernel_softcap.*::test_value_and_slope|test_bounds|test_02_masked_out_whole|test_19_layouts"
    r"|test_15_smoothing_with_minus_inf|TestOut::test_filled_and_returned"
    r"|test_gradient_against_finite_differences|test_finds_the_minimum|test_kernel_planes.*::test_losses_and_gradients|test_kernel_softcap.*::test_every_length"
    r"|test_torch_autograd.*::test_.*derivatives"
    r"|test_batches_of_upstream_gradients|test_torch_compile.*::test_one_graph|test_scores_of_any_kind_give_the_same_figures"
    r"|test_torch_devices.*::test_second_derivatives|test_float16_keeps_what"
    r"|test_values_and_gradients_are_those_of_the_cpu|test_what_is_written_is_read|test_a_bad_address"
    r"|test_values_and_derivatives_are_those_of_int64"
    r"|test_probabilities_are_those_of_logistic|test_torch_fuse.*::test_losses"
)

# Tests of which one case takes more than about 1 s: most open a browser.
TWICE = re.compile(
    r"/test_page|test_explain_browser|test_report.*::test_in_a_browser|test_the_page_fits|test_chunks_of_a_linear_layer"
    r"|test_kernel_soft_targets.*::test_options|test_memory_stays_within_max_bytes|test_memory_of_all_threads|test_a_computation_without_numba"
    r"|test_tables_are_readable_at_80_columns|test_votes_of_many_classes|test_tensors_without_data"
    r"|test_working_memory_stays_within_the_plan|test_rows_in_blocks_and_parts|TestWithoutFloat64::test_bounds"
    r"|test_torch_linear_compile.*::test_one_graph|test_torch_linear_derivatives|test_one_step_has_the_gradients"
    r"|test_help_is_not_cut_off"
)

# Tests, or cases, that take more than about 5 s each, and those beside a quicker case of the same; cases
# of float16 that alone need its kernels of planes.
SLOW = re.compile(
    r"test_gpu_script|test_tutorial|test_other_cpus|test_no_tangent_is_lost.dual|test_transforms_within_compiled_code"
    r"|test_fifty_steps_are_those_of_the_unfused_model|test_generation_gives_the_same_tokens.(?!OPT)"
    r"|test_torch_fuse_models.*::test_(tied|bfloat16|peak|accumulated|gradient_check|trainer|compiled_model)"
    r"|test_steps_of_a_compiled_model|test_fifty_steps_of_a_classifier|test_processes_that_compile_at_once|test_cuda_front.*::test_second_derivatives"
    r"|test_torch_devices.*::test_second_derivatives.linear|test_every_option_compiles_for_each_device"
    r"|test_kernels_are_cached_on_disk|test_without_a_cache_folder|test_the_process_stays_within_the_plan"
    r"|test_importing_and_training_do_not_load|test_bfloat16_without_its_package|test_temperatures_beyond_float32"
    r"|test_backends_agree|test_one_pass_and_its_memory|test_many_classes.triton.*1000000|test_inductor"
    r"|test_parts_touch_no_memory_beyond|test_ctrl_c_keeps_what_was_reached|test_the_same_bits_in_a_forked_process"
    r"|test_autocast_changes_nothing|test_torch_autograd.*::test_second_derivatives.soft-all"
    r"|test_scratch_is_held_to_the_end|test_half_types_have_all.*(16|dtype1)"
    r"|test_ordinary_rows_are_not_left_to_the_scalar_kernels.b?float(16|64)|test_masks_and_temperatures.float64"
    r"|test_kernel_soft_targets.*::test_(types_that_differ|options_of_half_types)|test_spread_targets_at_temperatures_beyond_float32"
    r"|test_torch_team.*::test_(losses_have\w*\[(?!plain-shape0)|probabilities_have.*(log|shape[1-9]))"
    r"|test_torch_direct.*::test_(the_same.*(softcap-temperature|soft-reduction-softcap)|(each_b|targets).*(softcap|temperature))"
    r"|test_torch_direct.*::test_the_same_bits.*(temperature|softcap).*dtype[12]|test_torch_linear_direct.*all-dtype"
    r"|test_weights_of_either_sign.*float64"
    r"|test_in_a_process_of_its_own|test_torch_compile.*::test_dynamic_shapes|test_compiled_models_are_right"
    r"|test_the_function_is_there_whatever_was_imported|test_the_figure_is_the_same_bytes_each_time"
    r"|test_02_masked_out_whole.*compiled-b?float(16|64)|test_15_smoothing_with_minus_inf.*compiled-b?float(16|64)"
    r"|/test_page\w*.py::test_(?!numbers_are_the_librarys.0|scores_are_typed|the_story_comes|steps_are_scrolled|each_point_shows"
    r"|captions_are|everything_has_a_name)|test_cli_explain.*::test_figures.*(svg|pdf)"
    r"|test_transforms_end_the_graph|test_torch_linear_compile.*::test_dynamic|test_torch_sparse.*::test_memory"
    r"|test_calibrated_classifiers_raise_no_alarm|test_the_optimum_is_the_same_in_a_third|test_a_full_disk"
    r"|test_finds_the_minimum.triton|test_float32_stays_float32|test_too_few_iterations_give_a_warning"
    r"|test_19_layouts.compiled-float16|test_22_out_of_range.compiled-float16|test_kernel_turned.*\[float16"
    r"|test_half_types_read_the_logits.float16|test_kernel_planes.*::test_(every_type|bounds_of_losses).float16"
    r"|\[(.*-)?jax(-jit)?(-.*)?\]"  # the core's cases: tests/jax_door has its own
    r"|test_site|test_documents.*::test_commands_of_softnll_run.(README|docs/getting-started|docs/how-to/large)"
    r"|test_needs_neither_numba_nor_scipy|test_torch_tokens.*::test_derivatives"
    r"|test_a_warm_process_does_not_import_numba|test_products_and_gradients_in_any_memory.b?float16"
    r"|test_jax_functions.*::test_transformations|test_dask_example|test_cli_report.*::test_many_classes"
    r"|test_a_worker_killed_in_the_middle"
    r"|test_a_partition_that_ends_each_worker|test_a_client_that_is_closed"
    r"|test_the_coefficients_are_those_of_the_local_estimator.*synchronous|test_two_processes_give_the_bits|test_a_cluster_without"
    r"|test_hooks_on_a_compiled_head|test_an_import_of_numba_that_depends|test_kernels_that_cannot_be_cached|test_no_tangent_is_lost"
    r"|test_the_page_never_scrolls_sideways.*1600|test_jax_functions.*::test_half_types"
    # Half types: their kernels of planes and of spread targets, each compiled for one or two cases.
    r"|test_19_layouts.compiled-bfloat16|test_22_out_of_range.*b?float16|test_classes_on_any_axis.*b?float16"
    r"|test_kernel_turned.*bfloat16|test_softmax_of_another_library_is_a_distribution.*float16|test_bounds_of_losses.bfloat16"
    r"|test_torch_direct.*::test_the_same_bits.*dtype2|\[(.*-)?torch-b?float16"
    r"|test_half_types_have_all_derivatives|test_large_upstream_of_half_types|test_gradients_that_wait.*dtype2"
    r"|test_served.negative view of bfloat16|test_gradients_are_not_kept|test_1[67]_b?float16.*torch"
    r"|test_shapes_and_types_without_memory.*dtype2|test_torch_direct_normalise.*dtype2|test_half_types_read_the_logits"
    r"|test_softmax_of_another_library.*float16|test_kernel_planes.*::test_(every_type|bounds).b?float16"
    # float16 beside bfloat16, whose kernels are the same but for the conversion.
    r"|TestHardRows::\w+.compiled-float16|test_16_float16_many_classes|test_half_types_are_rounded_once"
    r"|test_what_max_bytes_is_said_to_need_is_enough.*float16|test_the_softmax_of_another_library_is_a_distribution.float16"
    r"|test_memory_stays_within_max_bytes.*float16|test_gradients_that_wait.*dtype3"
    r"|test_shapes_and_types_without_memory.*dtype3"
    r"|test_torch_parallel"  # both processes of the run start two each
    r"|test_a_scheduler_that_is_set|test_a_sharded_tensor_beside_plain|test_each_pair_of_values.torch"
    # Those for which alone a kernel is compiled; most stand beside cases of the same with another type or option.
    r"|TestOut::test_(in_place.torch-float|filled_and_returned.compiled-float16)"
    r"|TestHardRows::test_(temperature_and_weights_add_little.compiled-float32|soft_targets_and_smoothing.compiled-float64)"
    r"|test_signed_targets.*float32-temperature|test_06_masked_values_never_leak.compiled-float64"
    r"|test_jax_functions.*::test_(common_offsets|a_mean_of_no_rows|values_and_gradients.*(weights|arrays)|traced_values_that_are_out)"
    r"|test_an_unchecked_target_is_nan|test_targets_that_are_none|test_the_compiled_program_has_no_array_of_all_logits.none"
    r"|test_torch_compile.*::test_types.dtype[01]|test_half_types_lose_nothing.dtype0|test_torch_written_logits.*::test_half_types.dtype0"
    r"|test_torch_direct_normalise.*dtype1|test_torch_direct.*::test_the_same_bits.*(temperature-ignore|label_smoothing-dtype1)"
    r"|test_torch_linear_direct.*smoothed-dtype1|test_kernel_rows.*::test_half_types.float16|test_a_temperature_a_row.float64"
    r"|test_torch_values.*::test_normalised.*shape[2-4]|test_chains_of_operations|test_soft_caps_of_any_size.dtype0"
    r"|test_kernel_rows.*::test_masks_and_temperatures|test_half_types_raise_no_alarm.float16"
    # Those that take long beside a quicker case of the same.
    r"|test_an_exported_onnx_model.*(linear|stats|options|nll|soft-|log)"
    r"|test_the_most_frequent_of_many_classes|test_sparse.*::test_options_and_weights.*options3"
    r"|test_many_classes.strict|test_data_stay_on_the_workers|test_torch_linear.py::test_working_memory"
)

# Tests that take a minute each: they run first, as at the end one process would wait for the other.
LONGEST = re.compile(r"test_derivatives_to_order_three|test_gpu_script|test_other_cpus")


def longest_first(items):
    """Put the longest tests in front, and keep the order of the others."""
    items.sort(key=lambda item: LONGEST.search(item.nodeid) is None)


def mark_slow(items, slow):
    """Mark the tests that the default run leaves out."""
    of_function = defaultdict(list)
    for item in items:
        of_function[item.nodeid.split("[")[0]].append(item)
    for name, cases in of_function.items():
        taken = set(map(id, taken_by_default(name, cases)))
        for item in cases:
            if id(item) not in taken or SLOW.search(item.nodeid):
                item.add_marker(slow)


def taken_by_default(name, cases):
    """Return those of a test's cases that the default run takes."""
    parameters = cases[0].callspec.params if hasattr(cases[0], "callspec") else {}
    few = FEW if SAMPLED.search(name) else 2 if TWICE.search(name) else 0
    if few:
        return covering(cases, min(2, len(parameters)))[:few]
    return covering(cases, 2) if len(parameters) > 2 else cases


def parameters_of(case):
    """Return the parameters of a test's case by name."""
    return case.callspec.params


def covering(cases, strength, parameters=parameters_of):
    """Return cases in which each combination of values of so many parameters occurs, the most different first."""

    def combined(case):
        return set(combinations(sorted((name, repr(value)) for name, value in parameters(case).items()), strength))

    if len(cases) == 1:
        return cases
    given = [(case, combined(case)) for case in cases]
    missing = set().union(*(each for _, each in given))
    found = []
    while missing:
        best = max(given, key=lambda each: len(each[1] & missing))
        missing -= best[1]
        found.append(best[0])
    return found
