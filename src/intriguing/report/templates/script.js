const dialog = document.getElementById("enlarged");
const stage = dialog.querySelector("div");
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    stage.className = button.closest("figure").className;
    stage.replaceChildren(button.firstElementChild.cloneNode(true));
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
// A link to a run opens it.
const reveal = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", reveal);
reveal();
