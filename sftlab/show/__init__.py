"""Figures, claim cards, widgets and reports: the only room that draws."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "claims": ["claim_card"],
        "curves": ["plot_learning", "plot_losses"],
        "evaluation": ["plot_passes", "plot_power", "plot_two_measures"],
        "evaluation_page": ["evaluation_report"],
        "explorer": ["mask_explorer"],
        "forgetting": ["plot_meter"],
        "forgetting_map": ["Point", "plot_map", "plot_pareto"],
        "live": ["LossCurve"],
        "mask": ["show_mask"],
        "mask_text": ["KEY", "lines"],
        "planning": ["plot_measured", "plot_memory"],
        "plots": ["COLOURS", "GREY", "Picture", "plot_loss", "plot_reactions", "plot_shares"],
        "rating": ["Rating", "votes_sentence"],
        "report": ["next_command", "summary", "write_report"],
        "templates": ["findings", "side_by_side"],
        "text": ["continuations", "conversation", "sentence", "time_note"],
        "tradeoffs": ["plot_directions", "plot_methods", "plot_rates"],
        "training": ["plot_against", "plot_band", "plot_layout", "plot_steps"],
        "walker": ["map_walker"],
        "widgets": ["decision_guide", "decision_table"],
    },
)
