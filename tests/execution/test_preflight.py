"""Effects told of ordinary snippets of this field: each that is there, and none that is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovagent_jupyter.execution.preflight import Effect, EffectKind, effects_line, effects_of

ORDINARY: list[tuple[str, str]] = [
    # Nothing to tell: results go into new slots, tables and figures of the session.
    ("sc.pp.neighbors(adata, n_neighbors=15)\nsc.tl.umap(adata)\nsc.tl.leiden(adata)", ""),
    ("sc.pl.umap(adata, color=['leiden', 'CD3E'], save='_cells.png')", ""),
    ("sc.pp.calculate_qc_metrics(adata, qc_vars=['mt'], inplace=True)", ""),
    ("adata.var['mt'] = adata.var_names.str.startswith('MT-')", ""),
    ("adata.obs['group'] = adata.obs['leiden'].map({'0': 'T', '1': 'B'}).astype('category')", ""),
    ("sc.pp.highly_variable_genes(adata, n_top_genes=2000, flavor='seurat_v3')", ""),
    ("sc.tl.rank_genes_groups(adata, 'leiden')\ndf = sc.get.rank_genes_groups_df(adata, None)", ""),
    ("adata.layers['counts'] = adata.X.copy()", ""),
    ("sub = adata[adata.obs.leiden == '3'].copy()\nsc.pp.log1p(sub)\nsub.X *= 2", ""),
    ("sc.pp.log1p(adata, copy=True)\nsc.pp.filter_cells(adata, min_genes=3, inplace=False)", ""),
    ("mask = adata.obs['n_genes'] > 200\nprint(mask.sum(), adata[mask].n_obs)", ""),
    ("from sklearn.cluster import KMeans\nKMeans(5).fit_predict(adata.obsm['X_pca'])", ""),
    ("markers = {'T': ['CD3E']}\nsc.tl.score_genes(adata, markers['T'], score_name='T')", ""),
    ("import re\nre.compile('x').sub('', 'y'); model.eval(); df.eval('a+b')", ""),
    ("df = pd.DataFrame(adata.obs.groupby('leiden').size())\ndf.to_csv('sizes.csv')", ""),
    ("fig, ax = plt.subplots()\nax.hist(adata.obs.n_counts)\nfig.savefig('figures/h.png')", ""),
    ("parts = [adata[adata.obs.b == b] for b in adata.obs.b.unique()]\nad.concat(parts)", ""),
    ("import os, subprocess, requests, socket\nos.makedirs('out', exist_ok=True)", ""),
    ("adata = sc.read_h5ad('data/pbmc.h5ad')\nadata.write('results/pbmc.h5ad')", ""),
    ("sc.pp.pca(adata, layer='scaled')\nadata.obsm['X_pca2'] = adata.obsm['X_pca'][:, :10]", ""),
    ("sc.datasets.pbmc68k_reduced()\nsc.datasets.blobs()", ""),
    ("%matplotlib inline\n%load_ext autoreload\nadata?", ""),
    ("names = names[1:]\nkey = keys[0]\ntable = tables['x']", ""),
    ("with open('notes.txt', 'w') as f:\n    f.write('done.')", ""),
    ("np.load('matrix.npy')\ntorch.load('m.pt', weights_only=True)", ""),
    ("def clean(X):\n    self.X = X\n    return X[X > 0]", ""),
    # The matrix itself is changed.
    ("sc.pp.normalize_total(adata, target_sum=1e4)\nsc.pp.log1p(adata)", "1 in_place 2 in_place"),
    ("sc.pp.scale(adata, max_value=10)", "1 in_place"),
    ("import scanpy\nscanpy.pp.regress_out(adata, ['total_counts'])", "2 in_place"),
    ("from scanpy.pp import log1p as lg\nlg(adata)", "2 in_place"),
    ("adata.X = adata.layers['counts']", "1 in_place"),
    ("adata.X[adata.X < 1] = 0", "1 in_place"),
    ("adata.X.data *= 2\nadata.raw = adata", "1 in_place 2 in_place"),
    ("adata.layers['s'] = np.sqrt(adata.layers['s'])", "1 in_place"),
    ("sc.pp.log1p(adata, layer='counts')\ndel adata.layers['counts']", "1 in_place 2 in_place"),
    ("mdata.mod['rna'].X = 1", "1 in_place"),
    # Cells, genes, rows or columns go.
    ("sc.pp.filter_cells(adata, min_genes=200)\nsc.pp.filter_genes(adata, min_cells=3)",
     "1 drop 2 drop"),
    ("adata = adata[adata.obs.pct_counts_mt < 5, :].copy()", "1 drop"),
    ("adata = adata[:, adata.var.highly_variable]", "1 drop"),
    ("sc.pp.highly_variable_genes(adata, subset=True)", "1 drop"),
    ("adata._inplace_subset_obs(mask)", "1 drop"),
    ("sc.pp.subsample(adata, n_obs=1000)", "1 drop"),
    ("df = df[df.padj < 0.05]\ndf.dropna(inplace=True)\ndf = df.drop(columns='x')",
     "1 drop 2 drop 3 drop"),
    ("adata.obs = adata.obs[['leiden']]\ndel adata.obs['batch']", "1 drop 2 drop"),
    ("mu.pp.filter_obs(mdata, 'rna:n', lambda x: x > 3)", "1 drop"),
    # Files.
    ("adata = sc.read('a.h5ad')\nadata.write('a.h5ad')", "2 overwrite"),
    ("p = 'a.csv'\nd = pd.read_csv(p)\nd.to_csv(p)", "3 overwrite"),
    ("sc.read_h5ad('a.h5ad', backed='r+')", "1 overwrite"),
    ("with h5py.File('a.h5', 'a') as f:\n    f['x'] = 1", "1 overwrite"),
    ("pd.read_csv('/data/shared/meta.csv')", "1 read_outside"),
    ("base = Path('/scratch')\nadata.write(base / 'run1' / 'a.h5ad')", "2 write_outside"),
    ("open('../notes.txt', 'w')\nnp.save('~/x.npy', x)", "1 write_outside 2 write_outside"),
    ("out = '/results'\nfor n in 'ab':\n    plt.savefig(f'{out}/{n}.png')", "3 write_outside"),
    ("(Path.home() / '.bashrc').read_text()", "1 read_outside"),
    ("os.remove('tmp.h5ad')\nimport shutil\nshutil.rmtree(path)", "1 delete 3 delete"),
    ("from pathlib import Path\nPath('x.csv').unlink(missing_ok=True)", "2 delete"),
    # The world outside.
    ("adata = sc.datasets.pbmc3k()", "1 network"),
    ("import requests\nr = requests.get('https://example.org')", "2 network"),
    ("df = pd.read_csv('https://example.org/x.csv')", "1 network"),
    ("import gseapy as gp\ngp.enrichr(gene_list=g, gene_sets='KEGG')", "2 network"),
    ("!ls -la\nx = 1", "1 shell"),
    ("files = !ls *.h5ad", "1 shell"),
    ("import os\nos.system('samtools sort a.bam')", "2 shell"),
    ("import subprocess as sp\nsp.run(['bash', '-c', 'x'], check=True)", "2 shell"),
    ("%%bash\necho a\necho b", "1 shell"),
    ("!!ls", "1 shell"),
    ("%sx ls", "1 shell"),
    ("!wget https://example.org/x.gz", "1 network 1 shell"),
    ("!rm -rf data", "1 delete 1 shell"),
    ("%pip install scvi-tools", "1 install"),
    ("x = 1\n!{sys.executable} -m pip install -q anndata", "2 install"),
    ("%pip list", ""),
    ("%conda install -c bioconda samtools", "1 install"),
    ("import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', 'x'])",
     "2 install"),
    ("import pickle\nm = pickle.load(open('m.pkl', 'rb'))", "2 code_from_data"),
    ("joblib.load('m.joblib')\npd.read_pickle('x.pkl')", "1 code_from_data 2 code_from_data"),
    ("np.load('x.npy', allow_pickle=True)\ntorch.load('m.pt')",
     "1 code_from_data 2 code_from_data"),
    ("eval(text)\nexec(open('x.py').read())", "1 code_from_data 2 code_from_data"),
    # Magics around Python, and code that is none.
    ("%%time\n\nsc.pp.log1p(adata)\n!ls", "3 in_place 4 shell"),
    ("a = 1\n%time sc.pp.log1p(adata)", "2 in_place"),
    ("x = \\\n  1\n%timeit \\\n  -n 3 f(x)\nsc.pp.scale(adata)", "5 in_place"),
    ("%%writefile /etc/x.py\nprint(1)", "1 write_outside"),
    ("await fetch()\nsc.pp.scale(adata)", "2 in_place"),
    ("x = 1\nfor i in\n  pass", "2 unreadable"),
    ("\0", "1 unreadable"),
    ("(" * 100_000, "1 unreadable"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "expected"), ORDINARY, ids=lambda text: text[:40])
def test_effects(code: str, expected: str) -> None:
    effects = effects_of(code)
    assert " ".join(f"{e.line} {e.kind}" for e in effects) == expected, effects
    assert all(effect.text.isprintable() and len(effect.text) < 150 for effect in effects)


def test_a_work_directory_and_the_users_files(tmp_path: Path) -> None:
    (tmp_path / "old.csv").touch()
    code = f"df.to_csv('old.csv')\ndf.to_csv('{tmp_path}/new.csv')\npd.read_csv('/d/x.csv')"
    assert [e.kind for e in effects_of(code)] == ["write_outside", "read_outside"]
    inside = effects_of(code, work_dir=tmp_path, inputs=["/d/x.csv"])
    assert [(e.line, e.kind) for e in inside] == [(1, EffectKind.OVERWRITE)]
    given = effects_of("adata.write('/d/x.h5ad')", work_dir=tmp_path, inputs=["/d/x.h5ad"])
    assert [e.kind for e in given] == [EffectKind.OVERWRITE, EffectKind.WRITE_OUTSIDE]


def test_one_line_for_a_card() -> None:
    code = "sc.pp.scale(adata)\n!ls\nsc.pp.scale(adata)"
    assert effects_line(effects_of(code)) == (
        "Effects: changes adata.X (scale) (lines 1, 3) · runs a shell command: ls (line 2)"
    )
    assert effects_line([]) == ""


@settings(deadline=None)
@given(st.text(alphabet="()[]{}=.!%?'\"\\\n adXx0:,#*lambda~/"))
def test_no_text_makes_it_raise(text: str) -> None:
    lines = max(text.count("\n") + 1, 1)
    for effect in effects_of(text):
        assert isinstance(effect, Effect)
        assert 1 <= effect.line <= lines + 1
