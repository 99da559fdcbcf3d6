"""Which functions of the libraries of this field have which effect, as data for ``preflight``."""

from __future__ import annotations

ALIASES = {
    "ad": "anndata", "anndata": "anndata", "dc": "decoupler", "glob": "glob", "gp": "gseapy",
    "joblib": "joblib", "json": "json", "mu": "muon", "np": "numpy", "os": "os", "pd": "pandas",
    "pickle": "pickle", "plt": "matplotlib.pyplot", "requests": "requests", "sc": "scanpy",
    "scvi": "scvi", "shutil": "shutil", "sns": "seaborn", "sq": "squidpy",
    "subprocess": "subprocess", "sys": "sys", "torch": "torch", "urllib": "urllib",
    "zarr": "zarr", "h5py": "h5py", "Path": "pathlib.Path",
}  # fmt: skip
"""Names that mean the same in nearly every notebook, for cells whose imports are elsewhere."""

CHANGES_X = frozenset(
    """scanpy.pp.normalize_total scanpy.pp.normalize_per_cell scanpy.pp.log1p scanpy.pp.sqrt
    scanpy.pp.scale scanpy.pp.regress_out scanpy.pp.combat scanpy.pp.downsample_counts
    scanpy.pp.recipe_zheng17 scanpy.pp.recipe_seurat scanpy.pp.recipe_weinreb17
    scanpy.experimental.pp.normalize_pearson_residuals
    scanpy.experimental.pp.recipe_pearson_residuals scanpy.external.pp.magic
    scanpy.external.pp.dca muon.prot.pp.clr muon.prot.pp.dsb muon.atac.pp.tfidf
    muon.atac.pp.binarize rapids_singlecell.pp.normalize_total rapids_singlecell.pp.log1p
    rapids_singlecell.pp.scale rapids_singlecell.pp.regress_out""".split()
)
DROPS = {
    "scanpy.pp.filter_cells": "cells",
    "scanpy.pp.filter_genes": "genes",
    "scanpy.pp.filter_genes_dispersion": "genes",
    "scanpy.pp.subsample": "cells",
    "scanpy.pp.sample": "cells or genes",
    "scanpy.pp.recipe_zheng17": "genes",
    "scanpy.pp.recipe_seurat": "cells and genes",
    "scanpy.pp.recipe_weinreb17": "genes",
    "scanpy.experimental.pp.recipe_pearson_residuals": "genes",
    "muon.pp.filter_obs": "cells",
    "muon.pp.filter_var": "genes",
    "muon.pp.intersect_obs": "cells",
    "rapids_singlecell.pp.filter_cells": "cells",
    "rapids_singlecell.pp.filter_genes": "genes",
}
DROPS_WITH_SUBSET = frozenset(
    """scanpy.pp.highly_variable_genes scanpy.experimental.pp.highly_variable_genes
    scvi.data.poisson_gene_selection rapids_singlecell.pp.highly_variable_genes""".split()
)
"""Only with ``subset=True``."""
DROPPING_METHODS = {
    "drop": "rows or columns",
    "dropna": "rows or columns",
    "drop_duplicates": "rows",
    "query": "rows",
    "truncate": "rows",
}
"""Methods of tables; with ``inplace=True``, or where the result takes the table's name."""
PART_METHODS = frozenset({"head", "tail", "sample", "nlargest", "nsmallest"}) | frozenset(
    DROPPING_METHODS
)
SUBSETS = {"_inplace_subset_obs": "cells", "_inplace_subset_var": "genes"}

READERS = frozenset(
    """scanpy.read scanpy.read_h5ad scanpy.read_10x_h5 scanpy.read_10x_mtx scanpy.read_loom
    scanpy.read_text scanpy.read_csv scanpy.read_excel scanpy.read_hdf scanpy.read_mtx
    scanpy.read_umi_tools scanpy.read_visium anndata.read anndata.read_h5ad anndata.read_zarr
    anndata.read_loom anndata.read_csv anndata.read_text anndata.io.read_h5ad
    anndata.io.read_zarr muon.read muon.read_h5mu muon.read_10x_h5 mudata.read mudata.read_h5mu
    pandas.read_csv pandas.read_table pandas.read_excel pandas.read_parquet pandas.read_feather
    pandas.read_hdf pandas.read_json pandas.read_pickle numpy.load numpy.loadtxt
    numpy.genfromtxt numpy.fromfile scipy.io.mmread scipy.io.loadmat matplotlib.pyplot.imread
    squidpy.read.visium squidpy.read.nanostring scvi.data.read_h5ad joblib.load
    skimage.io.imread tifffile.imread""".split()
)
"""The path is the first argument."""
WRITERS = frozenset(
    """scanpy.write numpy.save numpy.savez numpy.savez_compressed numpy.savetxt
    scipy.sparse.save_npz scipy.io.mmwrite matplotlib.pyplot.savefig anndata.io.write_h5ad
    tifffile.imwrite skimage.io.imsave""".split()
)
SECOND_ARGUMENT_WRITERS = frozenset(
    """shutil.copy shutil.copy2 shutil.copyfile shutil.copytree shutil.move os.rename os.replace
    joblib.dump torch.save urllib.request.urlretrieve""".split()
)
WRITING_METHODS = frozenset(
    """write_h5ad write_h5mu write_zarr write_csvs write_loom to_csv to_excel to_parquet to_feather
    to_pickle to_hdf to_json to_html savefig tofile""".split()
)
PATH_METHODS = {"write_text": "w", "write_bytes": "w", "touch": "w", "mkdir": "w",
                "read_text": "r", "read_bytes": "r"}  # fmt: skip
"""Methods of a path itself."""
DATA_SUFFIXES = (".h5ad", ".h5mu", ".h5", ".zarr", ".csv", ".loom")
"""What tells ``adata.write(path)`` from ``file.write(text)``."""
PATH_KEYWORDS = ("filename", "path", "path_or_buf", "filepath_or_buffer", "fname", "file", "io",
                 "filepath", "dst", "dirname")  # fmt: skip

NETWORK = (
    "requests.", "urllib.request.", "urllib3.", "httpx.", "aiohttp.", "socket.", "ftplib.",
    "smtplib.", "http.client.", "paramiko.", "boto3.", "gdown.", "wget.", "pooch.retrieve",
    "scanpy.queries.", "scanpy.datasets.", "squidpy.datasets.", "scvi.data.", "scvelo.datasets.",
    "gseapy.enrichr", "gseapy.get_library", "gseapy.Msigdb", "gseapy.Biomart", "GEOparse.",
    "Bio.Entrez.", "mygene.", "pybiomart.", "omnipath.", "decoupler.get_", "decoupler.op.",
    "cellxgene_census.", "huggingface_hub.", "datasets.load_dataset", "openai.", "anthropic.",
    "celltypist.models.download", "muon.datasets.", "ftputil.", "gprofiler.",
)  # fmt: skip
"""Beginnings of names."""
NOT_NETWORK = (
    "scanpy.datasets.pbmc68k_reduced", "scanpy.datasets.blobs", "scanpy.datasets.krumsiek11",
    "scanpy.datasets.toggleswitch", "scvi.data.read_", "scvi.data.synthetic_iid",
    "scvi.data.poisson_gene_selection", "scvi.data.add_dna_sequence",
    "scvi.data.organize_", "scvi.data.reads_to_fragments", "socket.gethostname",
)  # fmt: skip
URLS = ("http://", "https://", "ftp://", "s3://", "gs://", "gcs://", "az://", "hf://")
SHELL = (
    "os.system", "os.popen", "os.exec", "os.spawn", "os.posix_spawn", "os.startfile",
    "subprocess.", "pty.spawn", "asyncio.create_subprocess_", "pexpect.", "sh.",
)  # fmt: skip
NOT_SHELL = ("subprocess.CalledProcessError", "subprocess.PIPE", "subprocess.TimeoutExpired")
DELETES = frozenset(
    "os.remove os.unlink os.rmdir os.removedirs shutil.rmtree send2trash.send2trash".split()
)
MOVES = frozenset({"os.rename", "os.replace", "os.renames", "shutil.move"})
CODE_LOADERS = frozenset(
    """pickle.load pickle.loads pickle.Unpickler joblib.load dill.load dill.loads cloudpickle.load
    cloudpickle.loads pandas.read_pickle shelve.open marshal.load marshal.loads runpy.run_path
    torch.load numpy.load yaml.load yaml.unsafe_load yaml.full_load
    keras.models.load_model""".split()
)
SAFE_LOADS = {
    "torch.load": lambda kept: kept.get("weights_only") is True,
    "numpy.load": lambda kept: kept.get("allow_pickle") is not True,
    "yaml.load": lambda kept: "Safe" in str(kept.get("Loader", "")),
    "keras.models.load_model": lambda kept: kept.get("safe_mode") is not False,
}
"""Whether the arguments given make such a load harmless."""
CODE_BUILTINS = frozenset({"eval", "exec"})

PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun", "memit", "mprun", "snakeviz"})
HARMLESS_MAGICS = frozenset(
    """HTML html javascript js latex markdown SVG svg debug matplotlib config load_ext reload_ext
    autoreload who whos who_ls reset_selective history hist pinfo pinfo2 pdoc psource pfile
    xmode pylab env set_env doctest_mode colors automagic alias_magic lsmagic magic quickref cd pwd
    dirs pushd popd bookmark ls ll cat less more head tail ovagent recall rerun precision
    store unload_ext load gui logstart logstop macro page pprint precision profile psearch tb
    warn""".split()
)
INSTALLERS = frozenset({"pip", "conda", "mamba", "micromamba", "uv"})
INSTALLING = ("install", "uninstall", "update", "upgrade", "remove", "create", "add", "sync")
REMOVING_COMMANDS = frozenset({"rm", "rmdir", "unlink", "shred", "truncate"})
NETWORK_COMMANDS = frozenset(
    "wget curl git scp rsync ssh sftp ftp aws gsutil prefetch fasterq-dump aria2c nc".split()
)
