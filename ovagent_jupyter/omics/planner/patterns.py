"""The patterns of the parameter grammar, as tables; ``grammar.py`` applies them."""

from __future__ import annotations

import re

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?:e[+-]?\d+)?(?:k\b)?"
LESS = (
    r"(?:<=?|≤|(?:is |are |be |to |at )?(?:below|under|less than|fewer than|lower than|"
    r"smaller than|"
    r"at most|up to|no more than|not more than|max(?:imum)?(?: of)?|a max(?:imum)? of|"
    r"does not exceed))"
)
MORE = (
    r"(?:>=?|≥|(?:is |are |be |to |at )?(?:above|over|more than|greater than|higher than|"
    r"larger than|"
    r"at least|no less than|not less than|no fewer than|min(?:imum)?(?: of)?|a min(?:imum)? of|"
    r"exceeding|exceeds))"
)
MITO = (
    r"(?:(?:the )?(?:percent(?:age)?|fraction|pct|%)?(?: of)?[ ._-]?(?:mitochondri(?:al|a)|mito|mt)"
    r"(?:[ ._-]?(?:reads?|transcripts?|umis?|counts?|content|genes?|fraction|percent(?:age)?|pct|"
    r"rna|%))*|"
    r"pct_counts_mt|percent\.mt|percent_mito)"
)
GENES = (
    r"(?:n_?genes?(?:_by_counts)?|n_?features?(?:_rna)?|genes detected|detected genes|"
    r"expressed genes|genes per cell|genes expressed|number of genes|genes|features)"
)
COUNTS = (
    r"(?:n_?umis?|n_?counts?(?:_rna)?|total[_ ](?:counts|umis?)|umi[_ ]counts?|number of umis?|"
    r"umis?|reads|counts|library size)"
)
CELLS = r"(?:n_?cells|cells)"
FIELDS = {"mito": MITO, "genes": GENES, "counts": COUNTS, "cells": CELLS}
DROPS = re.compile(
    r"\b(?:remov\w*|drop\w*|exclud\w*|discard\w*|get rid of|throw(?: away| out)?|eliminat\w*|"
    r"filter(?:ing|ed|s)? out|trim\w*|toss\w*|weed(?:ed)? out|kick(?:ed)? out|ditch\w*)\b",
    re.IGNORECASE,
)
KEEPS = re.compile(
    r"\b(?:kept|keep\w*|retain\w*|subset\w*|select\w*|requir\w*|with at least|only)\b",
    re.IGNORECASE,
)
FILTERS = re.compile(r"\bfilter\w*\b", re.IGNORECASE)
SIGNS = re.compile(r"[<>≤≥]")
PASSIVE = re.compile(
    r"^[^,;.\n]*?\b(?:should|must|shall|ha(?:ve|s) to|needs? to|are to|is to|to|gets?|can|will)\s+"
    r"(?:be |get |go\b)?(?P<verb>[^,;.\n]*)|^\s*(?:[:)]|->|→|=>)\s*(?P<order>[^,;.\n]*)",
    re.IGNORECASE,
)
"""A verb after the threshold: "... should be removed", "...: drop"."""
OF_GENES = re.compile(
    r"\b(?:filter\w*|remov\w*|drop\w*|keep\w*|retain\w*|exclud\w*|discard\w*|select\w*)"
    r"(?: out)?(?: all| the| any| only| those)* (?P<what>genes?|features|cells?)\b",
    re.IGNORECASE,
)
BARE = re.compile(r"\bcells?\b[^,;:(]*$", re.IGNORECASE)
FRACTION = 1.0


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern that does not mind upper or lower case."""
    return re.compile(pattern, re.IGNORECASE)


THRESHOLDS = tuple(
    (name, direction, compiled(pattern))
    for name, words in FIELDS.items()
    for direction, compare in (("max", LESS), ("min", MORE))
    for pattern in (
        rf"\b{words}\s*(?:(?:that|which) )?(?:is |are |of )?{compare}\s*"
        rf"(?P<value>{NUMBER})\s*(?P<unit>%|percent\b)?(?!\s*(?:mads?|pcs?)\b)",
        rf"(?:\b(?:with|have|having|has|in|by|expressing|of)\s+)?{compare}\s*(?P<value>{NUMBER})"
        rf"\s*(?P<unit>%|percent(?:age)?\b)?\s*(?:of )?(?:the )?(?:their )?"
        rf"(?:reads |counts )?(?:from |in )?(?:a )?(?:different |expressed |detected )?{words}\b",
    )
)
MITO_LIMIT = (
    compiled(
        rf"\b(?:max(?:imum|imal)?\s+)?{MITO}\s*(?:cut-?off|threshold|limit|filter)?"
        rf"\s*(?:of|to|at|=|:|is)?\s*(?P<value>{NUMBER})\s*(?P<unit>%|percent\b)"
    ),
    compiled(
        rf"(?P<value>{NUMBER})\s*(?P<unit>%|percent)\s*{MITO}\s*(?:cut-?off|threshold|limit)\b"
    ),
)
NAMED_LIMIT = compiled(
    rf"\b(?P<bound>min|max)(?:imum|imal)?[ _](?:number of )?(?P<what>genes|counts|umis|cells)\s*"
    rf"(?:per (?:cell|gene)\s*)?(?:of|:|=|is|to)?\s*(?P<value>{NUMBER})(?!\s*%)"
)
BETWEEN = tuple(
    (
        name,
        compiled(
            rf"(?:\b(?P<outside>outside)(?: of)?(?: the range)?(?: of)?\s+)?"
            rf"\b(?:{words}\s+)?(?:(?:is |are )?(?:between|from|in the range(?: of)?)\s+)?"
            rf"(?P<low>{NUMBER})\s*(?:and|to|-|–)\s*(?P<high>{NUMBER})(?![\d.]*\s*%)"
            rf"(?:\s+(?:expressed |detected )?{words})?\b|"
            rf"(?P<least>{NUMBER})\s*<=?\s*{words}\s*<=?\s*(?P<most>{NUMBER})|"
            rf"\b(?:with|ha(?:ve|s|ving)|expressing)\s+{MORE}\s*(?P<above>{NUMBER})\s*(?:and|but)\s*{LESS}\s*(?P<below>{NUMBER})"
            rf"\s+{words}\b"
        ),
        compiled(rf"\b{words}\b"),
    )
    for name, words in FIELDS.items()
    if name in ("genes", "counts")
)
ASSIGNED = compiled(
    rf"\b(?P<name>[a-z]\w*)\s*=\s*(?P<value>{NUMBER}%?|true|false|none|'[^']*'|\"[^\"]*\"|[\w.-]+)"
)
CPM = compiled(r"\b(?:to |as |in )?(?:cpm|counts per million)\b")
LINK = r"\s*(?:(?:parameter|value|set)\s+)?(?:of|to|at|is|:|=|equal to|equals|set to)?\s*"

WORDED: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (key, compiled(pattern))
    for key, pattern in (
        ("resolution", rf"\b(?:resolutions?|res(?:ol)?)\b{LINK}(?P<value>{NUMBER})"
                       rf"(?:\s*(?:and|,|or)\s*(?P<more>{NUMBER}))?"),
        ("resolution", rf"\b(?P<value>{NUMBER})\s*resolution\b"),
        ("nmads", rf"\b(?P<value>{NUMBER})\s*(?:mads?|median absolute deviations?)\b"),
        ("nmads", rf"\b(?:n_?mads?)\b{LINK}(?P<value>{NUMBER})"),
        ("n_pcs", rf"\b(?:the )?(?:first |top )?(?P<value>{NUMBER})\s*"
                  r"(?:pcs?|principal components?|pca components?|pc dimensions)\b"),
        ("n_pcs", rf"\b(?:n_?pcs|pcs|number of pcs)\b{LINK}(?P<value>{NUMBER})"),
        ("n_comps", rf"\b(?P<value>{NUMBER})\s*(?:components?|comps|dimensions|dims)\b"),
        ("n_comps", rf"\b(?:n_?comps|components|dims)\b{LINK}(?P<value>{NUMBER})"),
        ("n_neighbors", rf"\b(?P<value>{NUMBER})[\s-]*(?:nearest[\s-])?neighbou?rs?\b"),
        ("n_neighbors", rf"\b(?:n_?neighbou?rs|k|neighbou?rs)\b{LINK}(?P<value>{NUMBER})"),
        ("n_top_genes", rf"\b(?:using|with|on|from)\s+(?:the\s+|only\s+)*(?:top\s+|best\s+)?"
                        rf"(?P<value>{NUMBER})\s*(?:most\s+)?(?:(?:highly[ -])?variable "
                        r"(?:genes|features)|hvgs?)\b"),
        ("n_top_genes", rf"\b(?:the )?(?:top )?(?P<value>{NUMBER})(?=\s*(?:most |top )?"
                        r"(?:highly[ -])?variable|\s*hvgs?\b|\s*informative)"),
        ("n_top_genes", rf"\b(?:n_?top_?genes|hvgs)\b{LINK}(?P<value>{NUMBER})"),
        ("top", rf"\b(?:top|best|first|strongest)[ -]?(?P<value>{NUMBER})\b"),
        ("top", rf"\b(?P<value>{NUMBER})\s*(?=(?:top |best )?(?:marker|genes (?:per|for|each)))"),
        ("min_dist", rf"\bmin(?:imum)?[ _-]?dist(?:ance)?\b{LINK}(?P<value>{NUMBER})"),
        ("spread", rf"\bspread\b{LINK}(?P<value>{NUMBER})"),
        ("perplexity", rf"\bperplexity\b{LINK}(?P<value>{NUMBER})"),
        ("target_sum", rf"\b(?:target[ _]sum|scale factor|size factor|counts per cell)\b"
                       rf"{LINK}(?P<value>{NUMBER})"),
        ("target_sum", rf"\b(?:to|per)\s+(?P<value>{NUMBER})\s*(?:total )?(?:counts?|umis?|reads)"
                       r"(?:\s*(?:per|in each|for each) cell)?"),
        ("max_value", rf"\b(?:clip\w*|max(?:imum)?[ _]value|cap\w*)\b{LINK}(?P<value>{NUMBER})"),
        ("doublet_rate", rf"\b(?:expected )?(?:doublet )?rate\b{LINK}(?P<value>{NUMBER})"
                         r"\s*(?P<unit>%|percent\b)?"),
        ("doublet_rate", rf"\b(?P<value>{NUMBER})\s*(?P<unit>%|percent)\s*(?=doublet)"),
        ("pval", rf"\bp\s*(?:<=?|≤)\s*(?P<value>{NUMBER})"),
        ("pval", rf"\b(?:p[ -]?val(?:ue)?s?|padj|fdr|adjusted p)\b\s*(?:<|≤|below|under|of|=)?\s*"
                 rf"(?P<value>{NUMBER})"),
        ("lfc", rf"\b(?:log2?[ -]?fold[ -]?change|log2?fc|lfc|fold[ -]?change)\b\s*"
                rf"(?:>=?|≥|above|over|of|at least|=)?\s*(?P<value>{NUMBER})"),
        ("fraction", rf"\b(?P<value>{NUMBER})\s*(?P<unit>%|percent)\s*(?:of )?(?:the |all )?"
                     r"(?=cells|data)"),
        ("fraction", rf"\bfraction\b{LINK}(?P<value>{NUMBER})"),
        ("n_cells", rf"(?:\b(?:to|only|just|take|keep|random|of|n)\s+|(?<=sample\s))"
                    rf"(?P<value>{NUMBER})\s*(?=(?:random |randomly chosen )?cells\b)"),
        ("n_cells", rf"\b(?P<value>{NUMBER})\s+(?=(?:random|randomly \w+) cells\b)"),
        ("n_dcs", rf"\b(?P<value>{NUMBER})\s*(?:diffusion components|dcs)\b"),
        ("theta", rf"\btheta\b{LINK}(?P<value>{NUMBER})"),
        ("n_genes_shown", rf"\b(?P<value>{NUMBER})\s*(?:genes|features)\b(?!\s*(?:in|per cell))"),
        ("umap_dims", r"\b(?:in )?(?P<value>[23])[- ]?d(?:imensions|imensional)?\b"),
    )
)  # fmt: skip
CHOICES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (key, value, compiled(pattern))
    for key, value, pattern in (
        ("method", "t-test", r"\b(?:with |using )?(?:an? )?(?:welch'?s? )?t[- ]?test\b"),
        ("method", "logreg", r"\b(?:with |using )?logistic regression\b|\blogreg\b"),
        ("method", "wilcoxon", r"\b(?:using |with )(?:the |a )?wilcoxon(?: rank[- ]sum)?"
                               r"(?: test)?\b"),
        ("metric", "cosine", r"\bcosine(?: distance| metric| similarity)?\b"),
        ("metric", "manhattan", r"\bmanhattan(?: distance| metric)?\b"),
        ("metric", "correlation", r"\bcorrelation (?:distance|metric)\b"),
        ("legend", "on data", r"\blegends? on (?:the )?(?:data|plot|clusters)\b|"
                              r"\blabels? on (?:the )?(?:data|plot|clusters)\b"),
        ("flavor", "cell_ranger", r"\bcell[ _]?ranger flavou?r\b|"
                                  r"\bflavou?r\s*(?:of|=|:)?\s*cell[ _]?ranger\b"),
        ("style", "matrixplot", r"\b(?=matrix[ -]?plots?\b)"),
        ("style", "stacked_violin", r"\b(?=stacked[ -]violins?\b)"),
        ("use_rep", "X_pca_harmony", r"\b(?:on|using|from|with) (?:the )?"
                                     r"(?:harmony|integrated|corrected)(?:[- ]corrected)?"
                                     r" (?:embedding|pcs|space|representation|pca)\b"),
        ("use_rep", "X_umap", r"\b(?:on|using|from) (?:the )?umap"
                              r"(?: (?:coordinates|embedding|space))\b|"
                              r"(?<=cluster )(?:on|using|from) (?:the )?umap\b|"
                              r"(?<=cells )(?:on|using|from) (?:the )?umap\b(?= *(?:$|[,.;]))"),
        ("use_raw", "true", r"\b(?:from|using|use|in) (?:the )?\.?raw\b(?! counts?)"),
        ("layout", "fa", r"\b(?:force ?atlas ?2?|fa2)\b"),
    )
)  # fmt: skip
CLAIMS = (
    ("counts", compiled(r"\b(?:x|it|the data|data|the matrix|values?) (?:is|are|holds?|contains?) "
                        r"(?:raw |umi )*counts\b")),
    ("lognorm", compiled(r"\b(?:x|it|the data|data|the matrix|values?) (?:is|are|holds?|contains?) "
                         r"(?:already )?log[- ]?normali[sz]ed\b")),
)  # fmt: skip
PATH = compiled(
    r"(?P<quote>['\"])(?P<quoted>[^'\"]*[/.][^'\"]*)(?P=quote)|"
    r"(?<![\w/])(?P<plain>(?:(?:~|\.{1,2})?/|\w:\\)?[\w./\\+-]*\.(?:h5ad|h5|mtx|loom|csv|tsv|txt|rds|"
    r"zarr|parquet|png|pdf|svg|ipynb)(?:\.gz)?)(?!\w)|"
    r"(?<![\w/.])(?!w/o?(?:\s|$))(?P<folder>(?:~|\.{1,2})?/[\w.+-]+(?:/[\w.+-]*)*|[\w.+-]+/(?:[\w.+-]+/)*"
    r"(?:[\w.+-]*filtered\w*[\w.+-]*|[\w.+-]*raw_feature\w*)?/?(?=\s|$)|"
    r"\bfiltered_feature_bc_matrix\b/?)"
)
MENTION = compiled(r"@[a-z_]\w*")
QUOTED = compiled(r"(?<!\w)(?P<quote>['\"`])(?P<inner>[^'\"`\n]{1,80})(?P=quote)(?!\w)")
KEY_ADDED = compiled(
    r"\b(?:as|called|named|into|store[ds]? (?:it )?(?:in|as|under)|key_added\s*=|key)\s+"
    r"(?P<name>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)\b"
)
CLUSTERS = compiled(
    r"\b(?:leiden |louvain )?clusters?\s*(?:#|no\.?|number)?\s*"
    r"(?P<all>\d+(?:\s*(?:,|and|&|or|\+|,\s*and)\s*"
    r"(?:clusters?\s*)?\d+)*)(?!\s*(?:as|to|is|=|:)\s*[a-z])(?![\w.])"
)
VERSUS_NUMBER = compiled(
    r"(?:\b(?:vs\.?|versus|against|with|to|and|from)\s+(?:clusters?\s*)?)(?P<all>\d+)\b(?![.\d%])"
)
REST = compiled(
    r"\b(?:vs\.?|versus|against|with|to|from|and)\s+(?:the )?(?:rest|"
    r"all(?: the)? others?(?: cells| clusters)?|everything(?: else)?|all other (?:cells|clusters)|"
    r"(?:the )?(?:remaining|other)(?: cells| clusters)?|the others|others)\b"
)
RENAMING = compiled(r"\b(?:rename|relabel|label|name|call)\b")
PAIR = compiled(
    r"\b(?:clusters?\s+)?(?P<old>\d+)\s*(?:as|to|is|=|:|->|→|into)\s*(?P<quote>['\"]?)"
    r"(?P<new>[a-z][\w+ /-]*?)(?P=quote)\s*(?=,|;|\.|$|\band\s+(?:clusters?\s+)?\d|\bthen\b|"
    r"\band\s+(?:plot|show|save))"
)
VARIABLES = compiled(
    r"\b(?:merge|concat\w*|combine|join)\s+(?:the )?(?:samples |datasets |objects )?"
)
