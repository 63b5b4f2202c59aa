"""Plots, claim cards, widgets and reports: the only room that draws."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards": [
            "continuations",
            "conversation",
            "findings",
            "sentence",
            "side_by_side",
            "time_note",
        ],
        "claims": ["claim_card"],
        "explorer": ["mask_explorer"],
        "forgetting_plots": ["Point", "plot_map", "plot_meter", "plot_pareto"],
        "live": ["LossCurve"],
        "mask": ["MASK_KEY", "show_mask"],
        "plots": [
            "COLOURS",
            "GREY",
            "Picture",
            "plot_curves",
            "plot_methods",
            "plot_power",
            "plot_reactions",
            "plot_shares",
        ],
        "report": ["evaluation_report", "next_command", "summary", "write_report"],
        "run_plots": [
            "plot_against",
            "plot_card",
            "plot_directions",
            "plot_layout",
            "plot_loss",
            "plot_memory",
            "plot_pretraining",
            "plot_runs",
        ],
        "widgets": ["Rating", "decision_guide", "decision_table", "map_walker", "votes_sentence"],
    },
)
